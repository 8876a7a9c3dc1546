//! Compression of a stream, once for all who read it.
//!
//! A gzip body is a header, deflate blocks and a trailer. Blocks that refer to nothing before them and end on a byte
//! (RFC 1951: after an empty stored block) can follow each other in any order, so a piece of the stream is compressed
//! once and its bytes go to every reader, whenever they joined. What belongs to one reader (`hello`, heartbeats) is put
//! in as a stored block, without work. A stream that is cut on purpose has no trailer and needs none.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};

/// RFC 1952: magic, deflate, no flags, no time, no hint, unknown system.
pub const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Level of compression: beyond it the gain on our events is below a percent, the work doubles.
const LEVEL: u32 = 5;
/// A stored block says its length in two bytes.
const STORED: usize = 65_535;

/// Compressors that are not in use; one is 300 KiB.
static IDLE: Mutex<Vec<Compress>> = Mutex::new(Vec::new());

/// Bytes and, once someone asks for it, their compressed form. Shared by all readers.
#[derive(Debug, Default)]
pub struct Packed {
    /// As they are.
    pub plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Packed {
    /// Bytes to be sent.
    #[must_use]
    pub const fn new(plain: Bytes) -> Self {
        Self { plain, gzip: OnceLock::new() }
    }

    /// Compressed; worked out once.
    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| block(&self.plain)).clone()
    }
}

/// Deflate blocks that stand alone and end on a byte.
#[must_use]
pub fn block(plain: &[u8]) -> Bytes {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut compress = idle.unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
    // Room for the worst case, so that one call does it.
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 128);
    let done = compress.compress_vec(plain, &mut out, FlushCompress::Sync);
    let whole = done.is_ok() && compress.total_in() == plain.len() as u64 && out.ends_with(&[0, 0, 0xff, 0xff]);
    compress.reset();
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(compress);
    if whole { Bytes::from(out) } else { stored(plain) }
}

/// Stored blocks: the bytes as they are.
#[must_use]
pub fn stored(plain: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(plain.len() + 5 * (plain.len() / STORED + 1));
    for part in plain.chunks(STORED) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        out.put_u8(0);
        out.put_u16_le(length);
        out.put_u16_le(!length);
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn blocks_follow_each_other_in_any_order() {
        let texts: Vec<_> = (0..50).map(|n| format!("event: x\ndata: {{\"n\":{n}}}\n\n").repeat(n)).collect();
        for start in [0, 7, 49] {
            let mut body = HEADER.to_vec();
            let mut expected = Vec::new();
            for (n, text) in texts.iter().enumerate().skip(start) {
                body.extend_from_slice(&if n % 3 == 0 { stored(text.as_bytes()) } else { block(text.as_bytes()) });
                expected.extend_from_slice(text.as_bytes());
            }
            let mut read = vec![0; expected.len()];
            flate2::read::GzDecoder::new(&body[..]).read_exact(&mut read).unwrap();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn noise_and_nothing_survive() {
        let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for plain in [&noise[..], b""] {
            let body = [HEADER, &block(plain), &stored(plain)].concat();
            let mut read = vec![0; 2 * plain.len()];
            flate2::read::GzDecoder::new(&body[..]).read_exact(&mut read).unwrap();
            assert!(read[..plain.len()] == *plain && read[plain.len()..] == *plain);
        }
    }
}
