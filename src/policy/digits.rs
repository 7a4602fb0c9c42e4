//! Finds payment cards, bank accounts and phone numbers in text.
//!
//! Guarantees: the time is linear in the text. Digits are ASCII; groups of them may have spaces, hyphens, points,
//! slashes and brackets between them. What two readings share is read as a card. Must not depend on: what replaces a
//! number.

use std::ops::Range;

/// The most characters between two groups of one number, as in `) - `.
const MOST_BETWEEN: usize = 3;
/// The most groups of one number.
const MOST_GROUPS: usize = 10;
/// The fewest digits of any number.
const LEAST_DIGITS: usize = 7;
/// How many digits a card has.
const CARD: std::ops::RangeInclusive<usize> = 12..=19;
/// The length of an IBAN, by country.
const IBANS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 \
                     EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 \
                     IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 \
                     NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 \
                     SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// A group of adjacent digits.
#[derive(Debug, Clone, Copy)]
struct Group<'a> {
    start: usize,
    digits: &'a str,
    /// What stands between it and the group before.
    before: &'a str,
}

impl Group<'_> {
    fn end(&self) -> usize {
        self.start.saturating_add(self.digits.len())
    }
}

/// Finds the numbers of cards and phones, as far as each is `wanted`, and calls `found` for each.
pub(super) fn find(text: &str, cards: bool, phones: bool, mut found: impl FnMut(NumberKind, Range<usize>)) {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        let rest = text.get(start..).unwrap_or_default();
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let before = groups.last().and_then(|last| text.get(last.end()..start)).unwrap_or_default();
        if !groups.is_empty() && !joins(before) {
            numbers(text, &groups, cards, phones, &mut found);
            groups.clear();
        }
        groups.push(Group { start, digits: rest.get(..length).unwrap_or_default(), before });
        at = start.saturating_add(length);
    }
    numbers(text, &groups, cards, phones, &mut found);
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKind {
    Card,
    Phone,
}

fn next_digit(text: &str, from: usize) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    from.checked_add(rest.iter().position(u8::is_ascii_digit)?)
}

/// Whether the text between two groups may be inside one number.
fn joins(between: &str) -> bool {
    let is_space = |c: char| {
        matches!(c, ' ' | '\t' | '\u{a0}' | '\u{202f}' | '-' | '\u{2010}'..='\u{2015}' | '.' | '/' | '(' | ')')
    };
    !between.is_empty() && between.chars().count() <= MOST_BETWEEN && between.chars().all(is_space)
}

/// Reads groups that stand together as numbers: cards first, then phones among the groups that are left.
fn numbers(
    text: &str,
    groups: &[Group<'_>],
    cards: bool,
    phones: bool,
    found: &mut impl FnMut(NumberKind, Range<usize>),
) {
    if count(groups) < LEAST_DIGITS {
        return;
    }
    if let [only] = groups {
        // Most numbers are such, so they cost no memory.
        let groups = std::slice::from_ref(only);
        let alone = |place: Option<Range<usize>>| place.filter(|place| stands_alone(text, place));
        if let Some(place) = alone(card(groups).filter(|_| cards)) {
            found(NumberKind::Card, place);
        } else if let Some(place) = alone(phone(text, groups).filter(|_| phones)) {
            found(NumberKind::Phone, place);
        }
        return;
    }
    let mut left = vec![groups];
    if cards {
        left.clear();
        let between = of_kind(text, groups, card, |place| found(NumberKind::Card, place));
        left.extend(between.into_iter().filter_map(|range| groups.get(range)));
    }
    if phones {
        for groups in left {
            of_kind(text, groups, |part| phone(text, part), |place| found(NumberKind::Phone, place));
        }
    }
}

/// Reads groups as numbers of one kind, the longest first at each place; returns the ranges of groups between them.
fn of_kind(
    text: &str,
    groups: &[Group<'_>],
    read: impl Fn(&[Group<'_>]) -> Option<Range<usize>>,
    mut found: impl FnMut(Range<usize>),
) -> Vec<Range<usize>> {
    let (mut between, mut begin, mut first) = (Vec::new(), 0, 0_usize);
    while first < groups.len() {
        let most = first.saturating_add(MOST_GROUPS).min(groups.len());
        let number = (first.saturating_add(1)..=most).rev().find_map(|end| {
            let place = read(groups.get(first..end)?)?;
            stands_alone(text, &place).then_some((place, end))
        });
        match number {
            None => first = first.saturating_add(1),
            Some((place, end)) => {
                found(place);
                between.push(begin..first);
                (begin, first) = (end, end);
            }
        }
    }
    between.push(begin..groups.len());
    between
}

/// Whether no letter stands right before or after a number, which would make it a part of a word.
fn stands_alone(text: &str, place: &Range<usize>) -> bool {
    let before = text.get(..place.start).and_then(|before| before.chars().next_back());
    let after = text.get(place.end..).and_then(|after| after.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

fn whole(groups: &[Group<'_>]) -> Option<Range<usize>> {
    Some(groups.first()?.start..groups.last()?.end())
}

fn digits<'a>(groups: &'a [Group<'a>]) -> impl Iterator<Item = u8> + 'a {
    groups.iter().flat_map(|group| group.digits.bytes()).map(|byte| byte.wrapping_sub(b'0'))
}

fn count(groups: &[Group<'_>]) -> usize {
    groups.iter().fold(0, |sum, group| sum.saturating_add(group.digits.len()))
}

/// A card: its check digit is valid (Luhn), and its first digit is one of a card's.
fn card(groups: &[Group<'_>]) -> Option<Range<usize>> {
    let count = count(groups);
    let first = digits(groups).next()?;
    if !CARD.contains(&count) || !(2..=6).contains(&first) {
        return None;
    }
    let mut sum = 0_u32;
    for (place, digit) in digits(groups).enumerate() {
        let doubled = (count.wrapping_sub(place)).is_multiple_of(2);
        let value = if doubled { u32::from(digit) * 2 } else { u32::from(digit) };
        sum += if value > 9 { value - 9 } else { value };
    }
    if sum.is_multiple_of(10) { whole(groups) } else { None }
}

/// A phone number, as people write it: after a plus or two zeros, with an area code in brackets, with a leading zero,
/// of ten digits as in North America, or in three groups and more.
fn phone(text: &str, groups: &[Group<'_>]) -> Option<Range<usize>> {
    let (first, count) = (groups.first()?, count(groups));
    let place = whole(groups)?;
    let before = text.get(..place.start).unwrap_or_default();
    let opened = before.strip_suffix('(');
    let plus = opened.unwrap_or(before).strip_suffix('+').or_else(|| opened.and_then(|it| it.strip_suffix('+')));
    let start = plus.map_or(opened.map_or(place.start, str::len), str::len);
    let found = start..place.end;
    if plus.is_some() {
        return (7..=15).contains(&count).then_some(found);
    }
    if !(7..=15).contains(&count) || is_date(groups) || is_decimal(groups) || is_address(groups) {
        return None;
    }
    let mut all = [0; MOST_GROUPS];
    all.iter_mut().zip(groups).for_each(|(length, group)| *length = group.digits.len());
    let lengths = all.get(..groups.len())?;
    let separators = groups.iter().skip(1).map(|group| group.before);
    let bracketed = opened.is_some() && separators.clone().next().is_some_and(|between| between.contains(')'));
    // Codes of areas do not begin with 0 or 1.
    let american = match lengths {
        [3, 3, 4] | [10] => !first.digits.starts_with(['0', '1']),
        [1, 3, 3, 4] | [11] => {
            first.digits.starts_with('1') && !first.digits.starts_with("10") && !first.digits.starts_with("11")
        }
        // Without the code of the area.
        [3, 4] => separators.clone().all(|between| between == "-"),
        _ => false,
    };
    let trunk = first.digits.starts_with('0') && (8..=13).contains(&count);
    let international = first.digits.starts_with("00") && count >= 9;
    let grouped = lengths.len() >= 3 && count >= 9 && lengths.iter().all(|length| *length <= 5);
    (bracketed || american || trunk || international || grouped).then_some(found)
}

/// Whether groups are a date or a time, as in `2024-01-15 10`.
fn is_date(groups: &[Group<'_>]) -> bool {
    let two = |group: &Group<'_>| group.digits.len() <= 2;
    let year = |group: &Group<'_>| {
        group.digits.len() == 4 && (group.digits.starts_with("19") || group.digits.starts_with("20"))
    };
    match groups {
        [one, two_of, three, rest @ ..] => {
            (year(one) && two(two_of) && two(three) || two(one) && two(two_of) && year(three)) && rest.iter().all(two)
        }
        _ => false,
    }
}

/// Whether it is a number with a fraction, or the fraction of one.
fn is_decimal(groups: &[Group<'_>]) -> bool {
    matches!(groups, [_, fraction] | [fraction] if fraction.before == ".")
}

/// Whether it is an IP address.
fn is_address(groups: &[Group<'_>]) -> bool {
    groups.len() == 4
        && groups.iter().skip(1).all(|group| group.before == ".")
        && groups.iter().all(|group| group.digits.parse::<u8>().is_ok())
}

/// Finds the bank accounts: a country that has such numbers, its length, and valid check digits.
pub(super) fn find_ibans(text: &str, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        at = start.saturating_add(1);
        let Some(begin) = start.checked_sub(2) else { continue };
        if let Some(end) = iban(bytes, begin) {
            found(begin..end);
            at = end;
        }
    }
}

/// Where the account number ends that begins at `begin`.
fn iban(bytes: &[u8], begin: usize) -> Option<usize> {
    let country = bytes.get(begin..begin.checked_add(2)?)?;
    if !country.iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let country = String::from_utf8(country.to_ascii_uppercase()).ok()?;
    let length: usize = IBANS.split(' ').find_map(|known| known.strip_prefix(country.as_str()))?.parse().ok()?;
    let (mut characters, mut at) = (Vec::with_capacity(length), begin);
    while characters.len() < length {
        match bytes.get(at)? {
            byte if byte.is_ascii_alphanumeric() => characters.push(byte.to_ascii_uppercase()),
            // A no-break space has two bytes.
            b' ' | b'-' | 0xc2 | 0xa0 if at > begin => {}
            _ => return None,
        }
        at = at.checked_add(1)?;
    }
    let (head, tail) = characters.split_at_checked(4)?;
    let mut rest = 0_u32;
    for byte in tail.iter().chain(head) {
        let value = char::from(*byte).to_digit(36)?;
        rest = if value > 9 { (rest * 100 + value) % 97 } else { (rest * 10 + value) % 97 };
    }
    (rest == 1).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(NumberKind, &str)> {
        let mut all = Vec::new();
        find(text, true, true, |kind, place| all.push((kind, text.get(place).unwrap())));
        all
    }

    #[test]
    fn cards_have_a_valid_check_digit() {
        for card in
            ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011 0009 9013 9424"]
        {
            assert_eq!(found(&format!("pay with {card}, ok?")), [(NumberKind::Card, card)], "{card}");
        }
        for other in ["4111111111111112", "9111111111111111", "1234567890123456", "x4111111111111111"] {
            assert!(found(other).iter().all(|(kind, _)| *kind != NumberKind::Card), "{other}");
        }
        assert_eq!(found("12 4111 1111 1111 1111 5"), [(NumberKind::Card, "4111 1111 1111 1111")]);
    }

    #[test]
    fn phone_numbers_are_found_as_people_write_them() {
        for phone in [
            "+15551234567",
            "+49 (0) 30 1234-5678",
            "+44 20 7946 0958",
            "(555) 123-4567",
            "555-123-4567",
            "555.123.4567",
            "5551234567",
            "1-555-123-4567",
            "030 1234567",
            "0171/1234567",
            "0049 30 1234567",
            "06 12 34 56 78",
            "555-1234",
        ] {
            assert_eq!(found(&format!("call {phone} now")), [(NumberKind::Phone, phone)], "{phone}");
        }
        assert_eq!(found("(+1 555 123 4567)")[0].0, NumberKind::Phone);
    }

    #[test]
    fn other_numbers_stay() {
        for other in [
            "2024-01-15 10:30:00.123456",
            "2024-01-15",
            "15.01.2024",
            "order 12345",
            "1700000000",
            "3.14159265358",
            "127.0.0.1",
            "99 95",
            "a5551234567",
            "5551234567b",
            "version 1.2.3",
        ] {
            assert_eq!(found(other), [], "{other}");
        }
    }

    #[test]
    fn bank_accounts_have_valid_check_digits() {
        let ibans = |text: &str| {
            let mut all = Vec::new();
            find_ibans(text, |place| all.push(text.get(place).unwrap().to_owned()));
            all
        };
        for iban in
            ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "nl91abna0417164300", "NO93 8601 1117 947"]
        {
            assert_eq!(ibans(&format!("my account is {iban} and")), [iban], "{iban}");
        }
        for other in ["DE88370400440532013000", "XX89370400440532013000", "DE89 3704", "é89"] {
            assert!(ibans(other).is_empty(), "{other}");
        }
    }
}
