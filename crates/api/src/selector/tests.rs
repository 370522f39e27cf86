use std::collections::BTreeMap;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn label_selectors_match_as_kubernetes_says() {
    let web = labels(&[("app", "web"), ("size", "5")]);
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app!=web", false),
        ("tier!=x", true),
        ("app in (a, web)", true),
        ("app notin (web)", false),
        ("tier notin (a)", true),
        ("app", true),
        ("!app", false),
        ("size>4,size<6", true),
        ("app=web,size=6", false),
        ("app=", false),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
    }
}

#[test]
fn a_broken_label_selector_is_explained() {
    assert_eq!(LabelSelector::parse("a===b").unwrap_err().to_string(), "found '=', expected: identifier");
}

#[test]
fn field_selectors_unescape_their_values() {
    let selector = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").unwrap();
    assert_eq!(selector.exact("metadata.name"), Some("a,b"));
    assert!(selector.matches(|field| if field == "metadata.name" { "a,b" } else { "Pending" }));
    assert!(!selector.matches(|field| if field == "metadata.name" { "a,b" } else { "Running" }));
}
