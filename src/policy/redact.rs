//! Replaces what patterns find in text.
//!
//! Guarantees: text without candidates costs a few scans for single bytes. Everything that any pattern finds is
//! replaced, overlaps too. Must not depend on: where the text comes from.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::digits::{self, NumberKind};
use super::mask::Pattern;
use crate::error::{Error, Result};

/// An address: what stands before and after the sign, which URLs write as `%40`.
const EMAIL: &str = r#"[^\s@<>()\[\]{},;:"\\|/=?&]+(?:@|%40)[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+"#;
/// The largest compiled expression of a policy's author.
const MOST_BYTES: usize = 1 << 20;

/// Compiled patterns.
#[derive(Debug)]
pub(super) struct Redactor {
    email: Option<Regex>,
    ip: bool,
    phone: bool,
    card: bool,
    iban: bool,
    own: Vec<(Regex, String)>,
}

/// What was found, and the word that replaces it.
struct Finding<'r> {
    place: Range<usize>,
    word: &'r str,
}

impl Redactor {
    /// Compiles patterns, which [`check_regex`] has accepted.
    pub(super) fn new(patterns: &BTreeSet<Pattern>) -> Result<Self> {
        let mut redactor = Redactor { email: None, ip: false, phone: false, card: false, iban: false, own: Vec::new() };
        for pattern in patterns {
            match pattern {
                Pattern::Email => redactor.email = Some(compiled(EMAIL)?),
                Pattern::Ip => redactor.ip = true,
                Pattern::Phone => redactor.phone = true,
                Pattern::Card => redactor.card = true,
                Pattern::Iban => redactor.iban = true,
                Pattern::Regex { regex, name } => redactor.own.push((compiled(regex)?, format!("[{name}]"))),
            }
        }
        Ok(redactor)
    }

    /// Whether nothing can be found in the JSON string `raw`, so that it need not be unescaped. Digits and signs stand
    /// in JSON as they are, unless they are written as `\u…`.
    pub(super) fn is_clear(&self, raw: &str) -> bool {
        if !self.own.is_empty() {
            return false;
        }
        let signs = Signs::of(raw.as_bytes());
        !(self.may_find(&signs) || signs.escapes && raw.contains("\\u"))
    }

    /// Whether a built-in pattern has a candidate.
    fn may_find(&self, signs: &Signs) -> bool {
        self.email.is_some() && signs.may_be_email() || self.has_numbers(signs) || self.ip && signs.may_be_ip()
    }

    fn has_numbers(&self, signs: &Signs) -> bool {
        (self.phone || self.card || self.iban) && signs.digits >= 7
    }

    /// Returns the text without what the patterns find; `None` if they find nothing.
    pub(super) fn redact(&self, text: &str) -> Option<String> {
        let mut found: Vec<Finding<'_>> = Vec::new();
        self.find(text, &Signs::of(text.as_bytes()), &mut found);
        for (regex, word) in &self.own {
            let matches = regex.find_iter(text).filter(|it| !it.is_empty());
            found.extend(matches.map(|it| Finding { place: it.range(), word }));
        }
        if found.is_empty() { None } else { Some(replaced(text, found)) }
    }

    fn find<'r>(&'r self, text: &str, signs: &Signs, found: &mut Vec<Finding<'r>>) {
        if let Some(email) = self.email.as_ref().filter(|_| signs.may_be_email()) {
            found.extend(email.find_iter(text).map(|it| Finding { place: it.range(), word: "[email]" }));
        }
        if self.ip && signs.may_be_ip() {
            found.extend(candidates(text.as_bytes()).filter_map(|place| address(text, place)));
        }
        if !self.has_numbers(signs) {
            return;
        }
        if self.iban {
            digits::find_ibans(text, |place| found.push(Finding { place, word: "[iban]" }));
        }
        if self.card || self.phone {
            digits::find(text, self.card, self.phone, |kind, place| {
                let word = if kind == NumberKind::Card { "[card]" } else { "[phone]" };
                found.push(Finding { place, word });
            });
        }
    }
}

/// Makes sure that an expression of a policy's author can be used, and finds something.
///
/// # Errors
/// NumberKind `Usage` with the reason.
pub(super) fn check_regex(regex: &str) -> Result<()> {
    let compiled = RegexBuilder::new(regex).size_limit(MOST_BYTES).build().map_err(|error| {
        // Its own text has several lines, the last of which says why.
        let why = error.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        Error::usage(format!("the regex {regex:?} cannot be used: {why}"))
            .with_hint("write it as the Rust crate `regex` reads it: no look-around, no back-references")
    })?;
    match compiled.is_match("") {
        true => Err(Error::usage(format!("the regex {regex:?} also matches nothing at all"))
            .with_hint("let it match at least one character, as in [0-9]+ in place of [0-9]*")),
        false => Ok(()),
    }
}

fn compiled(regex: &str) -> Result<Regex> {
    let built = RegexBuilder::new(regex).size_limit(MOST_BYTES).build();
    built.map_err(|error| Error::bug("a checked regex cannot be compiled").caused_by(error))
}

/// The bytes of a text without which the built-in patterns find nothing.
#[derive(Debug, Default)]
struct Signs {
    digits: usize,
    points: usize,
    colons: usize,
    /// `@`, or `%` of its form in URLs.
    at: bool,
    /// `\`.
    escapes: bool,
}

impl Signs {
    /// Counts them. The loop is such that the compiler takes many bytes at a time: a counter of 8 bits for each chunk.
    fn of(bytes: &[u8]) -> Self {
        const CHUNK: usize = 128;
        let mut signs = Signs::default();
        for chunk in bytes.chunks(CHUNK) {
            let (mut digits, mut points, mut colons, mut at, mut escapes) = (0_u8, 0_u8, 0_u8, 0_u8, 0_u8);
            for byte in chunk {
                digits = digits.wrapping_add(u8::from(byte.is_ascii_digit()));
                points = points.wrapping_add(u8::from(*byte == b'.'));
                colons = colons.wrapping_add(u8::from(*byte == b':'));
                at |= u8::from(*byte == b'@') | u8::from(*byte == b'%');
                escapes |= u8::from(*byte == b'\\');
            }
            signs.digits = signs.digits.saturating_add(usize::from(digits));
            signs.points = signs.points.saturating_add(usize::from(points));
            signs.colons = signs.colons.saturating_add(usize::from(colons));
            signs.at |= at > 0;
            signs.escapes |= escapes > 0;
        }
        signs
    }

    fn may_be_email(&self) -> bool {
        self.at
    }

    fn may_be_ip(&self) -> bool {
        self.points >= 3 && self.digits >= 4 || self.colons >= 2
    }
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    memchr::memchr_iter(wanted, bytes).count()
}

/// The runs of hexadecimal digits, colons and points that have enough of these for an IP address.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let is_inside = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + bytes.get(at..)?.iter().position(is_inside)?;
            let rest = bytes.get(start..)?;
            let run = rest.get(..rest.iter().position(|byte| !is_inside(byte)).unwrap_or(rest.len()))?;
            at = start + run.len();
            if count(run, b'.') >= 3 || count(run, b':') >= 2 {
                return Some(start..at);
            }
        }
    })
}

/// The IP address at a place, without the punctuation after it; `None` if it is none.
fn address(text: &str, place: Range<usize>) -> Option<Finding<'static>> {
    let found = text.get(place.clone())?;
    let start = place.start.checked_add(found.len().checked_sub(found.trim_start_matches('.').len())?)?;
    let trimmed = found.trim_matches('.');
    let before = text.get(..start)?.chars().next_back();
    let is_in_a_word = |c: char| c.is_alphanumeric();
    // A port may follow an address of version 4, and the end of a sentence any.
    for candidate in [trimmed, trimmed.trim_end_matches(':'), trimmed.rsplit_once(':').map_or("", |(host, _)| host)] {
        let end = start.checked_add(candidate.len())?;
        let after = text.get(end..)?.chars().next();
        let is_v6 = candidate.parse::<Ipv6Addr>().is_ok() && candidate.bytes().any(|byte| byte.is_ascii_digit());
        let is_address = candidate.parse::<Ipv4Addr>().is_ok() || is_v6;
        if is_address && !before.is_some_and(is_in_a_word) && !after.is_some_and(is_in_a_word) {
            return Some(Finding { place: start..end, word: "[ip]" });
        }
    }
    None
}

/// Puts words in the places of findings. Overlapping findings become one, with the word of the longest.
fn replaced(text: &str, mut found: Vec<Finding<'_>>) -> String {
    found.sort_by_key(|finding| (finding.place.start, std::cmp::Reverse(finding.place.end)));
    let (mut result, mut at) = (String::with_capacity(text.len()), 0);
    let mut rest = found.into_iter().peekable();
    while let Some(Finding { place, mut word }) = rest.next() {
        let (mut end, mut longest) = (place.end, place.len());
        while let Some(next) = rest.next_if(|next| next.place.start < end) {
            if next.place.len() > longest {
                (longest, word) = (next.place.len(), next.word);
            }
            end = end.max(next.place.end);
        }
        result.push_str(text.get(at..place.start).unwrap_or_default());
        result.push_str(word);
        at = end;
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<Pattern> {
        let own = Pattern::Regex { regex: "ORD-[0-9]+".to_owned(), name: "order".to_owned() };
        [Pattern::Email, Pattern::Phone, Pattern::Card, Pattern::Iban, Pattern::Ip, own].into()
    }

    fn redacted(text: &str) -> String {
        Redactor::new(&all()).unwrap().redact(text).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn what_is_found_is_replaced() {
        for (text, expected) in [
            ("Jane <jane.doe+x@mail.example.com>, hi", "Jane <[email]>, hi"),
            ("mailto:jörg@exämple.de?x=a%40b.co&y", "mailto:[email]?x=[email]&y"),
            ("from 10.1.2.3:8080 and 2001:db8::1, at 12:30:45", "from [ip]:8080 and [ip], at 12:30:45"),
            ("::1 or fe80::1%eth0 or std::vector or 1.2.3.4.", "[ip] or [ip]%eth0 or std::vector or [ip]."),
            ("+1 555 123 4567; 4111 1111 1111 1111", "[phone]; [card]"),
            ("DE89 3704 0044 0532 0130 00", "[iban]"),
            ("ORD-4111111111111111 and ORD-12", "[order] and [order]"),
            ("nothing here, 12 of 345", "nothing here, 12 of 345"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn redacting_again_changes_nothing() {
        let once = redacted("a@b.co +15551234567 4111111111111111 DE89370400440532013000 10.0.0.1 ORD-7");
        assert_eq!(once, "[email] [phone] [card] [iban] [ip] [order]");
        assert_eq!(redacted(&once), once);
    }

    #[test]
    fn a_clear_text_has_nothing_to_find() {
        let builtin = all().into_iter().filter(|pattern| !matches!(pattern, Pattern::Regex { .. })).collect();
        let redactor = Redactor::new(&builtin).unwrap();
        for text in ["", "two\\nlines", "12 of 9"] {
            assert!(redactor.is_clear(text), "{text}");
        }
        for text in ["a@b.co", "a\\u0040b.co", "1.2.3.4", "a%40b.co", "call 5551234", "::a1"] {
            assert!(!redactor.is_clear(text), "{text}");
        }
        assert!(!Redactor::new(&all()).unwrap().is_clear("x"), "own expressions need the text itself");
    }

    #[test]
    fn an_expression_that_cannot_be_used_is_refused() {
        for (regex, why) in [("[", "unclosed"), ("(?=x)", "look"), ("x*", "nothing at all"), (r"\w{5000}", "size")] {
            let error = check_regex(regex).unwrap_err();
            let text = error.chain().join(": ");
            assert!(text.contains(why) && !text.contains('\n') && error.hint().is_some(), "{text}");
        }
        check_regex("ORD-[0-9]+").unwrap();
    }
}
