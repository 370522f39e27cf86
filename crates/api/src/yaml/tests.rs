use std::fmt::Write as _;

use serde_json::json;

use super::*;

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    let text = "mode: 0644\nport: 80\non: yes\nquoted: \"yes\"\nratio: 0.5\nnothing: null\nempty:\ntext: 1.2.3\nmulti: |\n  a\n  b\nhex: 0x1F\n";
    assert_eq!(
        parse(text.as_bytes()).unwrap(),
        json!({"mode": 420, "port": 80, "on": true, "quoted": "yes", "ratio": 0.5, "nothing": null, "empty": null, "text": "1.2.3", "multi": "a\nb\n", "hex": 31})
    );
}

#[test]
fn a_manifest_has_several_documents_and_empty_ones_do_not_count() {
    let text = "# a comment\n---\nkind: A\n---\n\n---\n# nothing\n---\nkind: B\n";
    assert_eq!(parse_documents(text.as_bytes()).unwrap(), [json!({"kind": "A"}), json!({"kind": "B"})]);
    assert_eq!(parse_documents(b"").unwrap(), [] as [Value; 0]);
    assert_eq!(parse_documents(b"{\"kind\":\"A\"}").unwrap(), [json!({"kind": "A"})]);
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = "base: &base\n  a: 1\nmore:\n  <<: *base\n  b: 2\n";
    assert_eq!(parse(text.as_bytes()).unwrap(), json!({"base": {"a": 1}, "more": {"a": 1, "b": 2}}));
}

#[test]
fn an_error_is_one_line_with_its_place() {
    for text in ["kind: Pod\nspec:\n  - a\n b: 1\n", "a: [1, 2\n", "a: 1\na: 2\n", "a: \"x\n", "a: *nowhere\n"] {
        let error = parse(text.as_bytes()).unwrap_err();
        let shown = error.to_string();
        assert!(error.line >= 1 && !shown.contains('\n') && shown.starts_with("yaml: line "), "{shown}");
        assert!(!error.message.is_empty() && !error.message.contains(" at line "), "{shown}");
    }
    let error = parse_documents(b"kind: A\n---\nkind: [B\n").unwrap_err();
    assert_eq!(error.line, 3, "{error}");
    let error = parse(b"a: 1\na: 2\n").unwrap_err();
    assert_eq!(error.to_string(), "yaml: line 2, column 1: duplicate mapping key: a");
    assert!(parse(b"\xff").is_err());
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let item = format!("*a{}", level - 1);
        let items = [item.as_str(); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{items}]").expect("a text is written to memory");
    }
    assert!(parse(text.as_bytes()).is_err());
}

#[test]
fn what_is_written_reads_back() {
    for value in [
        json!({"a": "yes", "b": "0644", "c": "1e3", "d": "null", "e": "", "f": " x ", "g": "a: b", "h": "#c", "i": "- x", "j": "multi\nline\n", "k": "0x1f", "l": "~"}),
        json!({"list": [], "map": {}, "nested": [[1], {"a": [null, true]}], "n": -1, "f": 1.5}),
        json!({"time": "2026-11-22T10:31:34Z", "quantity": "1", "é": "\u{1f980}", "tab": "\t", "trailing": "x\n\n", "lead": "\n x"}),
        json!({"y": "n", "on": "off", "dash": "-", "colon": "a:", "percent": "25%", "star": "*", "brace": "{a}", "oct": "0o14"}),
    ] {
        let text = to_string(&value);
        assert_eq!(parse(text.as_bytes()).as_ref(), Ok(&value), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_written_reads_back(key in ".{0,12}", text in ".{0,40}") {
        let value = json!({key: {"a": text}});
        let written = to_string(&value);
        proptest::prop_assert_eq!(parse(written.as_bytes()), Ok(value), "{}", written);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse_documents(&bytes);
    }
}
