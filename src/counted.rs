//! Writes a number with its noun: "1 entry", "2 entries". Pure.

use std::fmt::Display;

/// Writes `number` and the English noun `singular`, in the plural unless the number is 1.
pub fn counted(number: impl Display, singular: &str) -> String {
    let number = number.to_string();
    match singular.strip_suffix('y') {
        _ if number == "1" => format!("{number} {singular}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let cases = [
            (0, "page", "0 pages"),
            (1, "page", "1 page"),
            (11, "page", "11 pages"),
            (1, "malformed entry", "1 malformed entry"),
            (2, "malformed entry", "2 malformed entries"),
        ];
        for (number, noun, expected) in cases {
            assert_eq!(counted(number, noun), expected);
        }
    }
}
