//! The text forms of selectors.

use super::{FieldRequirement, Operator, ParseSelectorError, Requirement};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Symbol(symbol) => (*symbol).to_owned(),
            Self::End => String::new(),
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ">", "<", "(", ")", ","];

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            out.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let special = |c: char| c.is_whitespace() || "=!><(),".contains(c);
            let end = rest.find(special).unwrap_or(rest.len());
            out.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    out.push(Token::End);
    out
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn peek(&mut self) -> Token {
        self.tokens.peek().cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, ParseSelectorError> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(found(&other, "identifier")),
        };
        crate::selector::check_label_key(&key)
            .map_err(|why| ParseSelectorError(format!("key: Invalid value: {key:?}: {why}")))?;
        let plain = |operator| Ok(Requirement { key: key.clone(), operator, values: Vec::new() });
        if negated {
            return plain(Operator::DoesNotExist);
        }
        let operator = match self.peek() {
            Token::Symbol(",") | Token::End => return plain(Operator::Exists),
            Token::Symbol("=" | "==") => Operator::In,
            Token::Symbol("!=") => Operator::NotIn,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Word(word) if word == "in" => return self.set(key, Operator::In),
            Token::Word(word) if word == "notin" => return self.set(key, Operator::NotIn),
            other => return Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
        };
        self.next();
        let value = match self.peek() {
            Token::Symbol(",") | Token::End => String::new(),
            Token::Word(word) => {
                self.next();
                word
            }
            other @ Token::Symbol(_) => return Err(found(&other, "identifier")),
        };
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
            return Err(ParseSelectorError(format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            )));
        }
        Ok(Requirement { key, operator, values: vec![value] })
    }

    fn set(&mut self, key: String, operator: Operator) -> Result<Requirement, ParseSelectorError> {
        self.next();
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(&other, "(")),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.next() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return Err(found(&other, ", or )")),
                    }
                }
                Token::Symbol(",") => values.push(String::new()),
                Token::Symbol(")") => {
                    values.push(String::new());
                    break;
                }
                other => return Err(found(&other, "identifier")),
            }
        }
        Ok(Requirement { key, operator, values })
    }
}

fn found(token: &Token, expected: &str) -> ParseSelectorError {
    ParseSelectorError(format!("found '{}', expected: {expected}", token.text()))
}

pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, ParseSelectorError> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    let mut requirements = Vec::new();
    if parser.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => return Err(found(&other, "',' or 'end of string'")),
        }
    }
}

pub(super) fn fields(text: &str) -> Result<Vec<FieldRequirement>, ParseSelectorError> {
    let mut requirements = Vec::new();
    for term in split_unescaped(text) {
        if term.is_empty() {
            continue;
        }
        requirements.push(field_requirement(&term)?);
    }
    Ok(requirements)
}

fn field_requirement(term: &str) -> Result<FieldRequirement, ParseSelectorError> {
    let invalid = || ParseSelectorError(format!("invalid selector: '{term}'; can't understand '{term}'"));
    let position = term.find(['=', '!']).ok_or_else(invalid)?;
    let (field, rest) = term.split_at(position);
    let (negated, value) = if let Some(value) = rest.strip_prefix("!=") {
        (true, value)
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        (false, value)
    } else {
        return Err(invalid());
    };
    Ok(FieldRequirement { field: field.to_owned(), value: unescape(value), negated })
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}
