// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decompresses zstd: one frame after another, as `cat a.zst b.zst` and zstd with several threads make them.

use std::io;
use std::io::BufRead;
use std::io::Read;

use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

/// The decompressed bytes of all frames of a source.
pub struct Frames<R: BufRead> {
    /// Between frames.
    source: Option<R>,
    /// Within a frame.
    frame: Option<StreamingDecoder<R, FrameDecoder>>,
}

impl<R: BufRead> Frames<R> {
    /// Creates it at the begin of the first frame.
    pub fn new(source: R) -> Self {
        Self {
            source: Some(source),
            frame: None,
        }
    }

    /// Begins with the next frame. Returns false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        let Some(mut source) = self.source.take() else {
            return Ok(self.frame.is_some());
        };
        if source.fill_buf()?.is_empty() {
            self.source = Some(source);
            return Ok(false);
        }
        self.frame = Some(StreamingDecoder::new(source).map_err(io::Error::other)?);
        Ok(true)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        while self.begin()? {
            let read = self
                .frame
                .as_mut()
                .map_or(Ok(0), |frame| frame.read(bytes))?;
            if read > 0 {
                return Ok(read);
            }
            self.source = self.frame.take().map(StreamingDecoder::into_inner);
        }
        Ok(0)
    }
}
