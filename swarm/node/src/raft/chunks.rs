//! A large content in a file as sealed chunks, so that neither end of it ever holds all of it in
//! memory. Knows nothing of what is in it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use super::codec::Codec;

/// Bytes of a chunk before it is sealed.
pub const CHUNK: usize = 512 << 10;
/// The largest sealed chunk that is believed.
const MAX_SEALED: usize = CHUNK + 1024;

/// Seals what is written to it. Nothing counts before [`ChunkWriter::finish`].
pub struct ChunkWriter<W> {
    out: W,
    codec: Arc<dyn Codec>,
    label: Vec<u8>,
    count: u64,
    buffer: Vec<u8>,
    failed: ErrorKind,
}

impl<W: Write> ChunkWriter<W> {
    /// `label` binds the chunks to each other and to their place.
    pub fn new(out: W, codec: Arc<dyn Codec>, label: Vec<u8>) -> Self {
        Self {
            out,
            codec,
            label,
            count: 0,
            buffer: Vec::new(),
            failed: ErrorKind::Other,
        }
    }

    /// The kind of the error that ended the writing.
    pub fn failed(&self) -> ErrorKind {
        self.failed
    }

    /// Writes the last chunk and gives back what is below.
    pub fn finish(mut self) -> io::Result<W> {
        self.chunk(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn chunk(&mut self, last: bool) -> io::Result<()> {
        let label = label(&self.label, self.count, last);
        let sealed = self.codec.seal(&label, std::mem::take(&mut self.buffer))?;
        write_frame(&mut self.out, &sealed)?;
        self.count += 1;
        Ok(())
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            let written = self.chunk(false);
            if let Err(error) = &written {
                self.failed = error.kind();
            }
            written?;
        }
        let room = CHUNK - self.buffer.len();
        let (taken, _) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what a [`ChunkWriter`] has written. Fails with `InvalidData` if it is damaged or cut off.
pub struct ChunkReader<R> {
    input: R,
    codec: Arc<dyn Codec>,
    label: Vec<u8>,
    count: u64,
    ended: bool,
    /// What [`Read`] has not given out yet.
    rest: io::Cursor<Vec<u8>>,
}

impl<R: Read> ChunkReader<R> {
    /// With the label of the writer.
    pub fn new(input: R, codec: Arc<dyn Codec>, label: Vec<u8>) -> Self {
        Self {
            input,
            codec,
            label,
            count: 0,
            ended: false,
            rest: io::Cursor::default(),
        }
    }

    /// The next chunk, and whether it is the last; `None` after that.
    pub fn chunk(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        if self.ended {
            return Ok(None);
        }
        let sealed = read_frame(&mut self.input)?;
        let open = |last| {
            let label = label(&self.label, self.count, last);
            self.codec.open(&label, &sealed)
        };
        let (plain, last) = match open(false) {
            Some(plain) => (plain, false),
            None => (open(true).ok_or(ErrorKind::InvalidData)?, true),
        };
        self.count += 1;
        self.ended = last;
        if last && self.input.read(&mut [0])? != 0 {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(Some((plain, last)))
    }
}

impl<R: Read> Read for ChunkReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.rest.read(bytes)?;
            if read > 0 || bytes.is_empty() {
                return Ok(read);
            }
            match self.chunk()? {
                Some((plain, _)) => self.rest = io::Cursor::new(plain),
                None => return Ok(0),
            }
        }
    }
}

/// Writes bytes with their length before them.
pub fn write_frame(out: &mut impl Write, sealed: &[u8]) -> io::Result<()> {
    let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(sealed)
}

/// Reads what [`write_frame`] has written.
pub fn read_frame(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_SEALED {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut sealed = vec![0; length];
    input.read_exact(&mut sealed)?;
    Ok(sealed)
}

fn label(of: &[u8], count: u64, last: bool) -> Vec<u8> {
    let mut label = of.to_vec();
    label.extend_from_slice(&count.to_be_bytes());
    label.push(u8::from(last));
    label
}
