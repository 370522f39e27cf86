//! Makes what commands print comparable: names that the server drew, ages and addresses become words.

/// Replacements, the first that fits a word winning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    names: Vec<(String, String)>,
    words: Vec<(String, String)>,
}

impl Mask {
    /// Ages, addresses and the spaces between columns.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// And this text, wherever it stands.
    pub(crate) fn name(mut self, text: &str, word: &str) -> Self {
        assert!(!text.is_empty(), "nothing to mask as {word}");
        self.names.push((text.to_owned(), word.to_owned()));
        self
    }

    /// And this word, where it stands alone.
    pub(crate) fn word(mut self, text: &str, word: &str) -> Self {
        self.words.push((text.to_owned(), word.to_owned()));
        self
    }

    /// The text with its lines' columns a constant two spaces apart, in the order printed.
    pub(crate) fn apply(&self, text: &str) -> String {
        text.lines().map(|line| self.line(line) + "\n").collect()
    }

    /// The same, the lines after the first in alphabetical order: for lists whose order is drawn.
    pub(crate) fn sorted(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(|line| self.line(line) + "\n").collect();
        if let Some(rows) = lines.get_mut(1..) {
            rows.sort();
        }
        lines.concat()
    }

    fn line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (text, word) in &self.names {
            line = line.replace(text, word);
        }
        let indent = line.len() - line.trim_start().len();
        let cells = line.trim().split("  ").filter(|cell| !cell.trim().is_empty()).map(|cell| self.cell(cell.trim()));
        " ".repeat(indent) + &cells.collect::<Vec<_>>().join("  ")
    }

    fn cell(&self, cell: &str) -> String {
        if cell.ends_with(" +0000") && cell.contains(':') {
            return "TIME".to_owned();
        }
        cell.split(' ').map(|word| self.masked(word)).collect::<Vec<_>>().join(" ")
    }

    fn masked(&self, word: &str) -> String {
        let bare = word.trim_start_matches('(').trim_end_matches(')');
        let known = self.words.iter().find(|(text, _)| text == bare).map(|(_, word)| word.as_str());
        match known {
            Some(masked) => word.replace(bare, masked),
            None if is_age(bare) => word.replace(bare, "AGE"),
            None if is_address(bare) => word.replace(bare, "IP"),
            None => word.to_owned(),
        }
    }
}

/// `5s`, `2m10s`, `3d4h`, and `<unknown>` never.
fn is_age(word: &str) -> bool {
    let mut digits = 0;
    let mut units = 0;
    for byte in word.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b's' | b'm' | b'h' | b'd' if digits > 0 => (digits, units) = (0, units + 1),
            _ => return false,
        }
    }
    units > 0 && digits == 0
}

fn is_address(word: &str) -> bool {
    word.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.octets()[0] == 10)
}

#[test]
fn ages_and_addresses_and_drawn_names_are_masked_and_nothing_else() {
    let mask = Mask::new().name("web-5d-abc", "POD");
    let text = "NAME        READY   AGE    IP\nweb-5d-abc  1/1  2 (12s ago)  2m10s   10.42.0.7   127.0.0.1\n";
    assert_eq!(mask.apply(text), "NAME  READY  AGE  IP\nPOD  1/1  2 (AGE ago)  AGE  IP  127.0.0.1\n");
}
