//! Faults in configurations and in environments.

use serde_json::{Value, json};

use testkit::Choices;

/// `config` in JSON, with a fault or two.
pub(crate) fn spoiled(choices: &mut Choices, config: &Value) -> String {
    loop {
        let text = spoiled_once(choices, config);
        // Where reservations are kept stays what it is.
        if text.contains("@DATA") || config["ipam"]["dataDir"].is_null() {
            return text;
        }
    }
}

fn spoiled_once(choices: &mut Choices, config: &Value) -> String {
    let mut config = config.clone();
    for _ in 0..1 + choices.below(2) {
        let pointers = pointers(&config);
        let pointer = choices.pick(&pointers);
        match choices.below(4) {
            0 => remove(&mut config, &pointer),
            1 => rename(choices, &mut config, &pointer),
            _ => *config.pointer_mut(&pointer).unwrap() = value(choices),
        }
    }
    let text = config.to_string();
    match choices.below(12) {
        // The last of two equal keys counts.
        0 => doubled(choices, &text),
        1 => String::from_utf8_lossy(&text.as_bytes()[..choices.below(text.len())]).into_owned(),
        2 => format!("{text}{}", choices.pick(&["x", " ", "{}", "\n", "\0"])),
        3 => format!("{}{text}", choices.pick(&["\u{feff}", " \t\r\n", ","])),
        _ => text,
    }
}

fn value(choices: &mut Choices) -> Value {
    let values = [
        json!(null),
        json!(5),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!(18_446_744_073_709_551_615_u64),
        json!(true),
        json!(""),
        json!("x"),
        json!("10.1.2.3"),
        json!("10.1.2.0/24"),
        json!("\u{0}é\u{1f980}\u{2028}<&>"),
        json!("x".repeat(300)),
        json!("../../x"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!(["10.1.2.3"]),
        json!([{"subnet": "10.1.2.0/29"}]),
        json!({"subnet": "10.1.2.0/29"}),
    ];
    choices.pick(&values)
}

fn pointers(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let mut all = Vec::new();
    for (key, value) in children {
        if key != "dataDir" {
            all.push(format!("/{key}"));
            all.extend(pointers(value).into_iter().map(|below| format!("/{key}{below}")));
        }
    }
    all
}

fn remove(config: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap() {
        Value::Object(entries) => drop(entries.remove(key)),
        Value::Array(elements) => drop(elements.remove(key.parse().unwrap())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn rename(choices: &mut Choices, config: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    if let Value::Object(entries) = config.pointer_mut(parent).unwrap() {
        let value = entries.remove(key).unwrap();
        let name = match choices.below(3) {
            0 => key.to_uppercase(),
            1 => key.replace('s', "\u{17f}").replace('k', "\u{212a}"),
            _ => format!("{key} "),
        };
        entries.insert(name, value);
    }
}

fn doubled(choices: &mut Choices, text: &str) -> String {
    let keys = ["name", "cniVersion", "IPAM", "ranges", "subnet", "Mode", "routes", "dst", "type"];
    let braces: Vec<usize> = text.match_indices('{').map(|(at, _)| at + 1).collect();
    let at = choices.pick(&braces);
    let rest = &text[at..];
    let comma = if rest.starts_with('}') { "" } else { "," };
    format!("{}\"{}\":{}{comma}{rest}", &text[..at], choices.pick(&keys), value(choices))
}

/// A variable and what it is set to; without a value it is left out.
pub(crate) fn variable(choices: &mut Choices) -> (&'static str, Option<&'static str>) {
    choices.pick(&[
        ("CNI_CONTAINERID", None),
        ("CNI_CONTAINERID", Some("")),
        ("CNI_CONTAINERID", Some("../x")),
        ("CNI_CONTAINERID", Some("a b")),
        ("CNI_IFNAME", None),
        ("CNI_IFNAME", Some("")),
        ("CNI_IFNAME", Some("longer-than-a-name")),
        ("CNI_IFNAME", Some("..")),
        ("CNI_IFNAME", Some("a/b")),
        ("CNI_IFNAME", Some("é")),
        ("CNI_NETNS", None),
        ("CNI_NETNS", Some("")),
        ("CNI_NETNS", Some("/nonexistent")),
        ("CNI_PATH", None),
        ("CNI_COMMAND", Some("add")),
        ("CNI_COMMAND", Some("")),
        ("CNI_ARGS", Some("\u{1f980}=1")),
    ])
}
