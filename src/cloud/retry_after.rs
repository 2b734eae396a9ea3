//! The `Retry-After` header (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// How long the answer with these headers asks to wait.
///
/// A date counts relative to the answer's `Date`, because the device's clock may be years off; without
/// `Date`, relative to `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, &RETRY_AFTER)?;
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let from =
        self::text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_dates_do_not_depend_on_the_devices_clock() {
        let asked = |retry: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700))
        };
        assert_eq!(asked("120", None), Some(Duration::from_secs(120)));
        let date = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", date), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(Duration::from_secs(77)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", date), Some(Duration::ZERO), "past");
        assert_eq!(asked("Sunday, 06-Nov-94 08:49:37 GMT", date), Some(Duration::from_secs(7)), "RFC 850");
        assert_eq!(asked("99999999999999999999999", None), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(asked("", date), None);
        assert_eq!(asked("soon", date), None);
        assert_eq!(asked("-5", None), None);
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }
}
