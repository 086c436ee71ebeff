//! The few pieces of DER (X.690) that the certificate template needs.

/// Wraps `parts` under a tag.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut octets = vec![tag];
    // X.690 §8.1.3: short form below 128, else the fewest octets.
    if let Ok(len @ 0..128) = u8::try_from(content.len()) {
        octets.push(len);
    } else {
        let len = content.len().to_be_bytes();
        let significant: Vec<u8> = len.into_iter().skip_while(|&octet| octet == 0).collect();
        octets.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
        octets.extend(significant);
    }
    octets.extend(content);
    octets
}

/// SEQUENCE.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// INTEGER of an unsigned number in network byte order.
pub(crate) fn unsigned(octets: &[u8]) -> Vec<u8> {
    let significant: Vec<u8> = octets.iter().copied().skip_while(|&octet| octet == 0).collect();
    // X.690 §8.3.3: a number whose first bit is set needs a zero octet, or it would be negative; zero has one octet.
    let sign: &[u8] = if significant.first().is_none_or(|&first| first >= 0x80) { &[0] } else { &[] };
    tlv(0x02, &[sign, &significant])
}

/// BIT STRING of whole octets.
pub(crate) fn bit_string(octets: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], octets])
}

/// OCTET STRING.
pub(crate) fn octet_string(octets: &[u8]) -> Vec<u8> {
    tlv(0x04, &[octets])
}

/// OBJECT IDENTIFIER from its content octets.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

/// Midnight (UTC) of a day since 1970 as a certificate's Time.
pub(crate) fn midnight(day: u16) -> Vec<u8> {
    let (year, month, day) = civil(day.into());
    // RFC 5280 §4.1.2.5: through 2049 UTCTime, from 2050 GeneralizedTime.
    if year < 2050 {
        return tlv(0x17, &[format!("{:02}{month:02}{day:02}000000Z", year % 100).as_bytes()]);
    }
    tlv(0x18, &[format!("{year:04}{month:02}{day:02}000000Z").as_bytes()])
}

/// Year, month and day of the Gregorian calendar for a day since 1970, at most 2^60.
pub(crate) const fn civil(day: u64) -> (u64, u64, u64) {
    // Years start in March here, so that a leap day is a year's last.
    let since_march_0 = day + 719_468;
    let era = since_march_0 / 146_097;
    let of_era = since_march_0 % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        let cases = [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_778, (2026, 11, 21)),
            (29_219, (2049, 12, 31)),
            (29_220, (2050, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (65_535, (2149, 6, 6)),
        ];
        for (day, date) in cases {
            assert_eq!(civil(day), date, "day {day}");
        }
        assert_eq!(midnight(20_778), b"\x17\x0d261121000000Z");
        assert_eq!(midnight(29_220), b"\x18\x0f20500101000000Z");
    }

    #[test]
    fn integers_and_lengths_are_minimal() {
        assert_eq!(unsigned(&[0, 0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(tlv(4, &[&[0; 127]])[..2], [4, 127]);
        assert_eq!(tlv(4, &[&[0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[&[0; 300]])[..4], [4, 0x82, 1, 44]);
    }
}
