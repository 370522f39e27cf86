//! Descriptions of types and fields, out of a text that whoever embeds the API server brings along: none is in this library.

use std::collections::BTreeMap;

/// Descriptions by type and field, borrowed from a text of lines: the type's full name, the field's JSON name (empty for the
/// type itself) and the description, parted by tabs; in a description the end of a line and a backslash are `\n` and `\\`.
/// A line of another form says nothing.
#[derive(Clone, Debug, Default)]
pub struct DescriptionTable<'a> {
    described: BTreeMap<(&'a str, &'a str), &'a str>,
}

impl<'a> DescriptionTable<'a> {
    /// Finds the descriptions in the text.
    pub fn of(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let mut parts = line.splitn(3, '\t');
            Some(((parts.next()?, parts.next()?), parts.next()?))
        };
        Self { described: text.lines().filter_map(line).collect() }
    }

    /// The description of a type, or of one of its fields.
    pub fn find(&self, type_name: &str, field: Option<&str>) -> Option<String> {
        let text = self.described.get(&(type_name, field.unwrap_or_default()))?;
        let mut out = String::with_capacity(text.len());
        let mut rest = *text;
        while let Some((before, escaped)) = rest.split_once('\\') {
            out.push_str(before);
            out.push(if escaped.starts_with('n') { '\n' } else { '\\' });
            rest = escaped.get(1..).unwrap_or_default();
        }
        out.push_str(rest);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_found_by_type_and_field() {
        let table =
            DescriptionTable::of("a.Pod\t\tA pod.\na.Pod\tspec\tTwo\\nlines with \\\\n and\ta tab.\nno description\n");
        assert_eq!(table.find("a.Pod", None).unwrap(), "A pod.");
        assert_eq!(table.find("a.Pod", Some("spec")).unwrap(), "Two\nlines with \\n and\ta tab.");
        assert_eq!(table.find("a.Pod", Some("status")), None);
        assert_eq!(table.find("no description", None), None);
    }
}
