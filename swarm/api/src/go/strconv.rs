//! Numbers and truth values in query strings, read and refused as Go's strconv does.

/// Go's `strconv.ParseUint(text, 10, 64)` with its error text.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    let why = if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        "invalid syntax"
    } else if let Ok(number) = text.parse() {
        return Ok(number);
    } else {
        "value out of range"
    };
    Err(format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

/// Go's `strconv.ParseBool` with its error text. Used by `status` and `insertDefaults`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// Docker's own reading of a flag such as `force`: anything but an explicit no is yes.
pub fn bool_value(text: &str) -> bool {
    !matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "" | "0" | "no" | "false" | "none"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_gos() {
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        for (text, why) in [
            ("", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("+1", "invalid syntax"),
            ("x", "invalid syntax"),
            ("18446744073709551616", "value out of range"),
        ] {
            let expected = format!("strconv.ParseUint: parsing \"{text}\": {why}");
            assert_eq!(parse_uint(text), Err(expected));
        }
        assert_eq!(parse_bool("T"), Ok(true));
        let refusal = "strconv.ParseBool: parsing \"maybe\": invalid syntax";
        assert_eq!(parse_bool("maybe"), Err(refusal.to_owned()));
    }

    #[test]
    fn only_an_explicit_no_is_no() {
        for text in ["", "0", "no", "False", " none "] {
            assert!(!bool_value(text), "{text}");
        }
        assert!(bool_value("1") && bool_value("maybe"));
    }
}
