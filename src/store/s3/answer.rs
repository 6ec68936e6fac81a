//! Bounds the answers of a service, and makes them parseable whatever names objects have.
//!
//! Answers other than the content of an object are read whole into memory, and they are XML, which has
//! no way to write most control characters. A service that sends one as it is would make a whole page
//! of a listing unreadable for the sake of one name that is not ours.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// Longest answer that is read into memory, bytes. A page of a listing has at most a thousand names of
/// at most 1024 bytes, each of which takes at most three when it is encoded: that is 3 MiB, and as much
/// again for what is said of them.
const BYTES_MAX: usize = 16 << 20;
/// Stands for a byte that XML cannot hold. No name of bkp's has it.
const PLACEHOLDER: u8 = 0x7f;

/// Bounds answers and makes them readable, before they are parsed.
#[derive(Debug)]
pub(super) struct AnswerSanitizer;

impl Intercept for AnswerSanitizer {
    fn name(&self) -> &'static str {
        "Tidy"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let is_get = config.load::<Metadata>().is_some_and(|asked| asked.name() == "GetObject");
        if is_get && response.status().is_success() {
            // The content of an object, whose reader takes no more than it asked for.
            return Ok(());
        }
        let body = std::mem::replace(response.body_mut(), SdkBody::taken());
        let body = Limited::new(body, BYTES_MAX).map_frame(|frame| frame.map_data(readable));
        *response.body_mut() = SdkBody::from_body_1_x(body);
        Ok(())
    }
}

/// Whether an answer was given up because it was too long.
pub(super) fn is_too_long(mut error: &(dyn std::error::Error + 'static)) -> bool {
    loop {
        if error.is::<LengthLimitError>() {
            return true;
        }
        match error.source() {
            Some(cause) => error = cause,
            None => return false,
        }
    }
}

/// The same bytes with a placeholder for each that is no character of XML, or part of one that is not
/// ASCII: names of bkp's have none of those, and whether they are well-formed cannot be told here.
fn readable(bytes: Bytes) -> Bytes {
    let is_fine = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7f);
    if bytes.iter().all(is_fine) {
        return bytes;
    }
    bytes.iter().map(|byte| if is_fine(byte) { *byte } else { PLACEHOLDER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_xml_cannot_hold_is_replaced() {
        let page = Bytes::from_static(b"<Key>a/b-c_d.e</Key>\r\n");
        assert_eq!(readable(page.clone()), page);
        let odd = Bytes::from_static(b"<Key>a\x01b\xff\xc3\xa4\0</Key>");
        assert_eq!(readable(odd), &b"<Key>a\x7fb\x7f\x7f\x7f\x7f</Key>"[..]);
    }
}
