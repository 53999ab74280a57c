//! Words a JSON syntax error as Go's scanner does, as far as one parser's findings allow.

use serde_json::error::Category;

/// Go's text for a body that is not JSON; the parser's own where Go has no counterpart.
pub fn text(error: &serde_json::Error, body: &[u8]) -> String {
    if error.classify() == Category::Eof {
        return "unexpected EOF".to_owned();
    }
    let own = error.to_string();
    let context = match own.split(" at line").next().unwrap_or_default() {
        "expected value" => "looking for beginning of value",
        "key must be a string" | "trailing comma" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        _ => return own,
    };
    match character(error, body) {
        Some(character) => format!("invalid character {character:?} {context}"),
        None => own,
    }
}

/// The character that the parser stumbled over.
fn character(error: &serde_json::Error, body: &[u8]) -> Option<char> {
    let line = body
        .split(|byte| *byte == b'\n')
        .nth(error.line().checked_sub(1)?)?;
    line.get(error.column().checked_sub(1)?)
        .map(|byte| char::from(*byte))
}

#[cfg(test)]
mod tests {
    use crate::go::decode;
    use crate::service::ServiceSpec;

    #[test]
    fn refusals_read_as_gos() {
        let table = [
            ("", "invalid JSON: got EOF while reading request body"),
            (" \n", "invalid JSON: got EOF while reading request body"),
            ("{", "invalid JSON: unexpected EOF"),
            ("{} x", "unexpected content after JSON"),
            ("{}{}", "unexpected content after JSON"),
            (
                "x",
                "invalid JSON: invalid character 'x' looking for beginning of value",
            ),
            (
                "{x",
                "invalid JSON: invalid character 'x' looking for beginning of object key string",
            ),
            (
                "{\"a\" 1}",
                "invalid JSON: invalid character '1' after object key",
            ),
            (
                "{\n\"a\":1 2}",
                "invalid JSON: invalid character '2' after object key:value pair",
            ),
            (
                "[1 2]",
                "invalid JSON: invalid character '2' after array element",
            ),
            (
                "[]",
                "invalid JSON: json: cannot unmarshal array into Go value of type swarm.ServiceSpec",
            ),
            (
                "{\"Name\":5}",
                "invalid JSON: json: cannot unmarshal number into Go struct field \
                 ServiceSpec.Name of type string",
            ),
            (
                "{\"mode\":{\"replicated\":{\"replicas\":-1}}}",
                "invalid JSON: json: cannot unmarshal number -1 into Go struct field \
                 ReplicatedService.Mode.Replicated.Replicas of type uint64",
            ),
            (
                "{\"TaskTemplate\":{\"ContainerSpec\":{\"Env\":\"A=1\"}}}",
                "invalid JSON: json: cannot unmarshal string into Go struct field \
                 ContainerSpec.TaskTemplate.ContainerSpec.Env of type []string",
            ),
        ];
        for (body, text) in table {
            let error = decode::<ServiceSpec>(body.as_bytes()).unwrap_err();
            assert_eq!(error.message, text, "{body}");
        }
    }
}
