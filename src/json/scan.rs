//! Finds where the parts of valid JSON end, without copying or understanding them.
//!
//! Guarantees: nesting costs no stack; every byte is read once; malformed text yields `None`. Must not depend on: what
//! the fields mean.

/// The length up to which a string is short.
const SHORT: usize = 16;

/// Where the value that begins at `at` ends; `None` if the text ends before.
pub fn value_end(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => string_end(json, at),
        b'{' | b'[' => container_end(json, at),
        _ => {
            let rest = json.get(at..)?;
            let length = rest.iter().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
            let end = at.checked_add(length.unwrap_or(rest.len()))?;
            (end > at).then_some(end)
        }
    }
}

/// Where the string whose opening quote is at `at` ends, after its closing quote.
pub fn string_end(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at.checked_add(1)?;
    // Most strings are short names, for which a search costs more than a look at each byte.
    let short = json.get(at..)?.iter().take(SHORT);
    for (length, byte) in short.enumerate() {
        match byte {
            b'"' => return at.checked_add(length)?.checked_add(1),
            b'\\' => break,
            _ => {}
        }
    }
    loop {
        at = at.checked_add(memchr::memchr2(b'"', b'\\', json.get(at..)?)?)?;
        match json.get(at)? {
            b'"' => return at.checked_add(1),
            _ => at = at.checked_add(2)?,
        }
    }
}

/// Where the object or array whose opening bracket is at `at` ends.
fn container_end(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match json.get(at)? {
            b'"' => {
                at = string_end(json, at)?;
                continue;
            }
            b'{' | b'[' => depth = depth.checked_add(1)?,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return at.checked_add(1);
                }
            }
            _ => {}
        }
        at = at.checked_add(1)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_do() {
        for (json, end) in [
            (r#""a\"b\\" , 1"#, Some(8)),
            (r#"{"a": "}", "b": [1, {"c": "\\\"]"}]} ,"#, Some(36)),
            ("[[[]], []] 7", Some(10)),
            ("-1.5e3,2", Some(6)),
            ("true}", Some(4)),
            ("null", Some(4)),
            ("", None),
            (",", None),
            (r#""open"#, None),
            (r#""open\"#, None),
            (r#"{"a": [1}"#, None),
        ] {
            assert_eq!(value_end(json.as_bytes(), 0), end, "{json}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(value_end(deep.as_bytes(), 0), Some(deep.len()));
    }
}
