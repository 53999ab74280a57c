//! Templates in a service's environment, host name and mounts: the small part of Go's templates
//! that swarm mode gives a meaning. Never prints `<no value>`: a missing value is an error.

use std::collections::BTreeMap;

use crate::object::{Node, Task};

/// Longest expanded text, in bytes.
const MAX_EXPANDED: usize = 64 * 1024;

/// What a template may refer to.
pub struct Context<'a> {
    task: &'a Task,
    node: &'a Node,
    payload: Option<&'a Payload>,
}

/// What templates of secrets and configs may refer to besides: the task's files by their targets,
/// and its environment.
#[derive(Default)]
pub struct Payload {
    /// Contents of secrets.
    pub secrets: BTreeMap<String, String>,
    /// Contents of configs.
    pub configs: BTreeMap<String, String>,
    /// Values by name.
    pub env: BTreeMap<String, String>,
}

/// A value within a template.
enum Value<'a> {
    Text(String),
    Map(&'a BTreeMap<String, String>),
}

impl<'a> Context<'a> {
    /// Templates of this task on this node.
    pub fn new(task: &'a Task, node: &'a Node) -> Self {
        Self {
            task,
            node,
            payload: None,
        }
    }

    /// The same for the content of a secret or config.
    pub fn with_payload(mut self, payload: &'a Payload) -> Self {
        self.payload = Some(payload);
        self
    }

    /// Replaces every `{{…}}` of a text.
    ///
    /// # Errors
    /// In words, naming the action that is not understood or has no value.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| "unclosed action".to_owned())?;
            let (trim_left, action) = strip(action, action.strip_prefix("- "));
            let (trim_right, action) = strip(action, action.strip_suffix(" -"));
            out.push_str(if trim_left { before.trim_end() } else { before });
            if !action.trim_start().starts_with("/*") {
                out.push_str(&self.action(action)?);
            }
            rest = if trim_right {
                after.trim_start()
            } else {
                after
            };
            if out.len() > MAX_EXPANDED {
                return Err(format!("the result is longer than {MAX_EXPANDED} bytes"));
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn action(&self, action: &str) -> Result<String, String> {
        let words = words(action)?;
        let value = match words.split_first() {
            None => return Err("missing value for command".to_owned()),
            Some((first, [])) => self.value(first)?,
            Some((function, arguments)) => match function.as_str() {
                "join" => self.join(arguments)?,
                "index" => self.index(arguments)?,
                "secret" | "config" | "env" if self.payload.is_some() => {
                    self.of_payload(function, arguments)?
                }
                other => return Err(format!("function \"{other}\" not defined")),
            },
        };
        match value {
            Value::Text(text) => Ok(text),
            Value::Map(map) => Ok(go_map(map)),
        }
    }

    fn join(&self, arguments: &[String]) -> Result<Value<'a>, String> {
        let texts: Vec<String> = arguments
            .iter()
            .map(|word| self.text(word))
            .collect::<Result<_, _>>()?;
        match texts.split_first() {
            Some((separator, parts)) => Ok(Value::Text(parts.join(separator))),
            None => Err("join needs a separator".to_owned()),
        }
    }

    /// `secret "target"`, `config "target"` and `env "NAME"`; an absent variable is an empty text.
    fn of_payload(&self, function: &str, arguments: &[String]) -> Result<Value<'a>, String> {
        let ([word], Some(payload)) = (arguments, self.payload) else {
            return Err(format!("{function} needs one name"));
        };
        let name = self.text(word)?;
        let from = match function {
            "secret" => &payload.secrets,
            "config" => &payload.configs,
            _ => {
                return Ok(Value::Text(
                    payload.env.get(&name).cloned().unwrap_or_default(),
                ));
            }
        };
        from.get(&name)
            .map(|text| Value::Text(text.clone()))
            .ok_or_else(|| format!("{function} target {name} not found"))
    }

    /// `index .Service.Labels "key"`; as in Go, an absent key is an empty text here.
    fn index(&self, arguments: &[String]) -> Result<Value<'a>, String> {
        match arguments {
            [map, key] => match self.value(map)? {
                Value::Map(map) => Ok(Value::Text(
                    map.get(&self.text(key)?).cloned().unwrap_or_default(),
                )),
                Value::Text(_) => Err(format!("can't index {map}")),
            },
            _ => Err("index needs a map and a key".to_owned()),
        }
    }

    fn text(&self, word: &str) -> Result<String, String> {
        match self.value(word)? {
            Value::Text(text) => Ok(text),
            Value::Map(_) => Err(format!("{word} is not a text")),
        }
    }

    fn value(&self, word: &str) -> Result<Value<'a>, String> {
        if let Some(literal) = word.strip_prefix(['"', '`']) {
            return Ok(Value::Text(literal.to_owned()));
        }
        if let Some(key) = word.strip_prefix(".Service.Labels.") {
            let value = self.task.service_labels.get(key);
            return value
                .map(|value| Value::Text(value.clone()))
                .ok_or_else(|| format!("map has no entry for key \"{key}\" at <{word}>"));
        }
        let (task, node) = (self.task, self.node);
        let platform = node
            .description
            .as_ref()
            .map(|description| &description.platform);
        let text = match word {
            ".Service.Labels" => return Ok(Value::Map(&task.service_labels)),
            ".Service.ID" => task.service_id.to_string(),
            ".Service.Name" => task.service_name.to_string(),
            ".Node.ID" => node.id.to_string(),
            ".Node.Hostname" => node
                .description
                .as_ref()
                .map(|d| d.hostname.clone())
                .unwrap_or_default(),
            ".Node.Platform.Architecture" => platform
                .map(|platform| platform.architecture.clone())
                .unwrap_or_default(),
            ".Node.Platform.OS" => platform
                .map(|platform| platform.os.clone())
                .unwrap_or_default(),
            ".Task.ID" => task.id.to_string(),
            ".Task.Name" => task.name(),
            ".Task.Slot" => task.place(),
            other => return Err(format!("can't evaluate <{other}>")),
        };
        Ok(Value::Text(text))
    }
}

fn strip<'a>(whole: &'a str, stripped: Option<&'a str>) -> (bool, &'a str) {
    stripped.map_or((false, whole), |rest| (true, rest))
}

/// Splits an action into words. A quoted text keeps its opening quote, to tell it from a name.
fn words(action: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = action.chars().peekable();
    while let Some(first) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut word = String::from(first);
        if matches!(first, '"' | '`') {
            loop {
                match chars.next() {
                    Some(c) if c == first => break,
                    Some('\\') if first == '"' => word.extend(escaped(chars.next())),
                    Some(c) => word.push(c),
                    None => return Err("unterminated quoted string".to_owned()),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(word);
    }
    Ok(words)
}

fn escaped(c: Option<char>) -> Option<char> {
    match c {
        Some('n') => Some('\n'),
        Some('t') => Some('\t'),
        other => other,
    }
}

/// A map as Go prints it.
fn go_map(map: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, task};

    #[test]
    fn texts_expand_as_in_go() {
        let mut task = task("t1", "web", 3);
        task.service_labels.insert("tier".into(), "front".into());
        let node = node("n1");
        let context = Context::new(&task, &node);
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("{{.Service.Name}}-{{ .Task.Slot }}", Ok("web-3")),
            ("{{.Node.Hostname}}/{{.Node.ID}}", Ok("host-n1/n1")),
            ("a {{- .Task.ID -}} b", Ok("at1b")),
            (
                r#"{{join "-" .Service.Name "x" .Task.Slot}}"#,
                Ok("web-x-3"),
            ),
            (r#"{{index .Service.Labels "tier"}}"#, Ok("front")),
            (r#"{{index .Service.Labels "none"}}"#, Ok("")),
            ("{{.Service.Labels.tier}}", Ok("front")),
            ("{{.Service.Labels}}", Ok("map[tier:front]")),
            ("{{.Task.Name}}", Ok("web.3.t1")),
            ("{{/* nothing */}}", Ok("")),
            ("{{.Service.Labels.none}}", Err(())),
            ("{{.Service.Nonsense}}", Err(())),
            ("{{env \"A\"}}", Err(())),
            ("{{.Task.ID", Err(())),
            ("{{}}", Err(())),
        ] {
            let expanded = context.expand(text).map_err(|_| ());
            assert_eq!(
                expanded.as_deref(),
                expected.as_ref().copied().map_err(|()| &()),
                "{text}"
            );
        }
    }
}
