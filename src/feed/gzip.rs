//! Compression of a stream, computed once for all readers.
//!
//! A gzip body is a header, deflate blocks and a trailer. Blocks that reference no earlier data and end on a byte
//! boundary (RFC 1951: after an empty stored block) can be concatenated in any order, so a piece of the stream is
//! compressed once and its bytes are sent to every reader, whenever it joined. Frames of a single reader (`hello`,
//! heartbeats) are inserted as stored blocks, without compression. A stream that is aborted on purpose has no trailer
//! and needs none.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};

/// RFC 1952: magic, deflate, no flags, no mtime, no extra flags, unknown OS.
pub const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Compression level: above it our events shrink by less than one percent more, at twice the CPU cost.
const LEVEL: u32 = 5;
/// Maximum length of a stored block: its length field has two bytes.
const STORED: usize = 65_535;

/// Pool of idle compressors; each takes 300 KiB.
static IDLE: Mutex<Vec<Compress>> = Mutex::new(Vec::new());

/// Bytes and, once requested, their compressed form. Shared by all readers.
#[derive(Debug, Default)]
pub struct Gzipped {
    /// The uncompressed bytes.
    pub plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Gzipped {
    /// Wraps bytes to be sent.
    #[must_use]
    pub const fn new(plain: Bytes) -> Self {
        Self { plain, gzip: OnceLock::new() }
    }

    /// The compressed form; computed once.
    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| block(&self.plain)).clone()
    }
}

/// Self-contained deflate blocks that end on a byte boundary.
#[must_use]
pub fn block(plain: &[u8]) -> Bytes {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut compress = idle.unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
    // Capacity for the worst case, so that one call suffices.
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 128);
    let done = compress.compress_vec(plain, &mut out, FlushCompress::Sync);
    let whole = done.is_ok() && compress.total_in() == plain.len() as u64 && out.ends_with(&[0, 0, 0xff, 0xff]);
    compress.reset();
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(compress);
    if whole { Bytes::from(out) } else { stored(plain) }
}

/// Stored blocks: the bytes uncompressed.
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
