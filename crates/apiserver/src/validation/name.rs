//! The rules that names of objects, ports, keys and variables follow, each giving the texts of what is wrong.
//!
//! Source of rules and texts: `k8s.io/apimachinery/pkg/util/validation`.

/// What the names of a kind look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// A lower-case RFC 1123 subdomain of at most 253 bytes: most kinds.
    Subdomain,
    /// A lower-case RFC 1123 label of at most 63 bytes: namespaces, services.
    Label,
    /// An RFC 1035 label of at most 63 bytes.
    Dns1035Label,
    /// Anything that can stand between two slashes of a path: RBAC.
    PathSegment,
}

impl NameRule {
    /// What is wrong with a name; with `prefix` it is the start of a generated one, which may end in a dash.
    pub fn check(self, name: &str, prefix: Prefix) -> Vec<String> {
        let masked;
        let name = match prefix {
            Prefix::Yes if name.len() > 1 && name.ends_with('-') && self != Self::PathSegment => {
                // The random end makes a legal name of it: a letter in place of the dash stands for that.
                masked = format!("{}a", &name[..name.len() - 1]);
                &masked
            }
            _ => name,
        };
        match self {
            Self::Subdomain => dns_subdomain(name),
            Self::Label => dns_label(name),
            Self::Dns1035Label => dns_1035_label(name),
            Self::PathSegment => path_segment(name, prefix),
        }
    }
}

/// Whether a text is a whole name or the start of a generated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// It is `metadata.generateName`.
    Yes,
    /// It is a whole name.
    No,
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character";
const QUALIFIED_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A lower-case RFC 1123 subdomain.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 253, "characters");
    if !value.split('.').all(is_label) {
        wrong.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
             and must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["example.com"],
        ));
    }
    wrong
}

/// A lower-case RFC 1123 label.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 63, "characters");
    if !is_label(value) {
        wrong.push(if value.split('.').all(is_label) {
            "must not contain dots".into()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                 and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

/// An RFC 1035 label: it starts with a letter.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 63, "characters");
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

fn path_segment(value: &str, prefix: Prefix) -> Vec<String> {
    if prefix == Prefix::No && matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `[prefix/]name`: keys of labels, finalizers, names of resources.
pub fn qualified_name(value: &str) -> Vec<String> {
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let mut wrong = Vec::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".into());
            } else {
                wrong.extend(dns_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let text = pattern(QUALIFIED, QUALIFIED_PATTERN, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else {
        wrong.extend(too_long(name, 63, "bytes").into_iter().map(|text| format!("name part {text}")));
    }
    if !coracle_api::selector::is_label_text(name) {
        wrong.push(format!("name part {}", pattern(QUALIFIED, QUALIFIED_PATTERN, &examples)));
    }
    wrong
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 63, "bytes");
    if !value.is_empty() && !coracle_api::selector::is_label_text(value) {
        wrong.push(pattern(
            &format!("a valid label must be an empty string or consist of {}", &QUALIFIED["must consist of ".len()..]),
            &format!("({QUALIFIED_PATTERN})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 253, "characters");
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(legal) {
        wrong.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => wrong.push("must not be '.'".into()),
        ".." => wrong.push("must not be '..'".into()),
        _ if value.starts_with("..") => wrong.push("must not start with '..'".into()),
        _ => {}
    }
    wrong
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn env_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.is_empty() {
        wrong.push("environment variable name must be non-empty".into());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    wrong
}

/// The name of a container's port (an IANA service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 15, "characters");
    let letter = |b: u8| b.is_ascii_lowercase();
    if value.is_empty() || !value.bytes().all(|b| letter(b) || b.is_ascii_digit() || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(letter) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// The number of a port.
pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65_535).contains(&value) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".into()] }
}

fn is_label(text: &str) -> bool {
    coracle_api::selector::is_dns_label(text)
}

/// DNS names, config keys and port names count "characters", labels "bytes"; both count bytes.
fn too_long(value: &str, limit: usize, unit: &str) -> Vec<String> {
    if value.len() > limit { vec![format!("must be no more than {limit} {unit}")] } else { Vec::new() }
}

fn pattern(text: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_object_name_gets_the_recorded_text() {
        let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
            start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
            '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        assert_eq!(NameRule::Subdomain.check("A_b", Prefix::No), [text]);
    }

    #[test]
    fn a_generated_name_may_start_with_what_ends_in_a_dash() {
        assert!(NameRule::Subdomain.check("web-", Prefix::Yes).is_empty());
        assert!(!NameRule::Subdomain.check("web-", Prefix::No).is_empty());
    }

    #[test]
    fn every_rule_says_what_it_wants() {
        let first = |wrong: Vec<String>| wrong.first().cloned().unwrap_or_default();
        assert_eq!(first(dns_label("a.b")), "must not contain dots");
        assert!(first(dns_label("a_b")).starts_with("a lowercase RFC 1123 label must consist of lower case"));
        assert!(first(dns_label("-")).ends_with("regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"));
        assert!(first(dns_1035_label("1a")).starts_with("a DNS-1035 label must consist of lower case"));
        assert_eq!(first(dns_label(&"a".repeat(64))), "must be no more than 63 characters");
        assert_eq!(first(NameRule::PathSegment.check("a/b", Prefix::No)), "may not contain '/'");
        assert_eq!(
            first(label_value("a b")),
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        );
        assert!(first(qualified_name("a/b/c")).starts_with("a valid label key must consist of"));
        assert_eq!(first(qualified_name("/b")), "prefix part must be non-empty");
        assert_eq!(first(config_key("..a")), "must not start with '..'");
        assert_eq!(port_name("Web"), ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"]);
        assert_eq!(first(port_number(0)), "must be between 1 and 65535, inclusive");
        assert!(!env_name("a=b").is_empty() && env_name("a b").is_empty());
    }
}
