//! Finds characters that were typed or pasted into a value by mistake: quotes, white space, invisible marks, and
//! variables that only a shell expands. Pure.

/// A stray part of a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Stray {
    /// The fault, to be put after the value's name: "begins with a quote".
    pub what: String,
    /// How to correct it.
    pub hint: &'static str,
}

const QUOTES: &str = "remove the quotes: without a shell, as in docker --env-file, they are part of the value";
const BLANKS: &str = "remove it; it may come from copying, or from a line ending in a file made on Windows";
const TILDE: &str =
    "write the whole path: a shell does not expand `~` in quotes or after `=` in a flag, and env files never do";
const VARIABLE: &str =
    "write the value itself: a shell does not expand variables in single quotes, and env files never do";

/// Whether `c` is a quote of any kind.
pub fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '´' | '«' | '»' | '\u{2018}'..='\u{201f}' | '′' | '″' | '‹' | '›' | '＂' | '＇')
}

/// Whether `c` is invisible: white space, a control character, or a mark such as a byte-order mark.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffb}')
        || is_mark(c)
}

/// Whether `c` is a mark of byte order or writing direction, which no address has.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Finds a quote or invisible character at either end of a value.
pub fn around(text: &str) -> Option<Stray> {
    [("begins", text.chars().next()), ("ends", text.chars().next_back())].into_iter().find_map(|(verb, c)| {
        let (kind, hint) = match c? {
            c if is_quote(c) => ("a quote", QUOTES),
            c if is_blank(c) => ("white space or an invisible character", BLANKS),
            _ => return None,
        };
        Some(Stray { what: format!("{verb} with {kind} ({})", code(c?)), hint })
    })
}

/// Finds a stray part of a path or an address: as [`around`], a variable or `~` that a shell should have expanded, or a
/// control character.
pub fn in_place(text: &str) -> Option<Stray> {
    let stray = |what: String, hint| Some(Stray { what, hint });
    if let Some(stray) = around(text) {
        return Some(stray);
    }
    let path = text.strip_prefix("file:").map_or(text, |path| path.trim_start_matches('/'));
    if path.starts_with('~') {
        return stray("begins with `~`".to_owned(), TILDE);
    }
    if is_variable(path) {
        return stray("contains a variable that was not expanded".to_owned(), VARIABLE);
    }
    // A file name may contain control characters; an address would silently lose them.
    let is_address = text.contains("://");
    let c = text.chars().find(|c| is_mark(*c) || is_address && c.is_control())?;
    stray(format!("contains a control or invisible character ({})", code(c)), BLANKS)
}

/// Whether a path contains a variable: of a shell (`$HOME/lake`, `s3://${BUCKET}/lake`), of systemd (`%h/lake`) or of
/// Windows (`%USERPROFILE%\lake`).
fn is_variable(path: &str) -> bool {
    let named = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    path.contains("${")
        || path.contains("$(")
        || path.split('/').any(|part| part.strip_prefix('$').is_some_and(named))
        || path.strip_prefix('%').is_some_and(|rest| {
            let name = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
            named(rest) && matches!(rest.chars().nth(name), Some('%' | '/'))
        })
}

/// The code point of a character, which may be invisible.
pub fn code(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> Option<&'static str> {
        in_place(text).map(|stray| stray.hint)
    }

    #[test]
    fn stray_characters_are_found() {
        for (text, expected) in [
            ("\"lake\"", QUOTES),
            ("'lake'", QUOTES),
            ("lake\"", QUOTES),
            ("“s3://bucket/lake”", QUOTES),
            ("`lake`", QUOTES),
            ("«lake»", QUOTES),
            (" lake", BLANKS),
            ("lake ", BLANKS),
            ("lake\r", BLANKS),
            ("lake\n", BLANKS),
            ("lake\u{a0}", BLANKS),
            ("\u{feff}lake", BLANKS),
            ("lake\u{200b}", BLANKS),
            ("s3://buc\u{200b}ket/lake", BLANKS),
            ("s3://buc\nket/lake", BLANKS),
            ("s3://bucket/la\u{1b}[0mke", BLANKS),
            ("~/lake", TILDE),
            ("~", TILDE),
            ("~user/lake", TILDE),
            ("file://~/lake", TILDE),
            ("file:///~/lake", TILDE),
            ("$HOME/lake", VARIABLE),
            ("${HOME}/lake", VARIABLE),
            ("/data/$ENV/lake", VARIABLE),
            ("s3://$BUCKET/lake", VARIABLE),
            ("s3://bucket/lake-${ENV}", VARIABLE),
            ("$(pwd)/lake", VARIABLE),
            ("%h/lake", VARIABLE),
            ("%USERPROFILE%\\lake", VARIABLE),
        ] {
            assert_eq!(hint(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn intended_characters_are_accepted() {
        for text in [
            "lake",
            "./my lake",
            "/data/joe's lake/x",
            "C:\\Users\\me\\lake",
            "/data/~lake",
            "lake~",
            "a~b/c",
            "vol$/lake",
            "price-in-$",
            "50%/lake",
            "%20lake",
            "s3://bucket/é/日本語",
            "https://api.decagon.ai",
            "",
        ] {
            assert_eq!(hint(text), None, "{text:?}");
        }
    }
}
