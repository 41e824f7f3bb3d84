// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads records with all CPUs, for what does not depend on their order.

use std::io;
use std::io::BufRead;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;

use super::Unread;
use super::next_line;
use super::parse;
use crate::Record;

/// The lines that a thread gets at once, in bytes, and the most of them that wait.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_WAITING: usize = 4;

/// The most threads: more need memory, and the disk or the decompression is the limit.
const THREADS_MAX: usize = 4;

/// Whole lines, and where each ends.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Reads all records of some sources, and adds each to one of several sums, which are returned.
///
/// # Errors
///
/// Fails when a source can't be read.
pub fn fold<S: Send>(
    sources: impl IntoIterator<Item = io::Result<Box<dyn BufRead + Send>>>,
    empty: impl Fn() -> S,
    add: impl Fn(&mut S, Record<'static>) + Sync,
) -> io::Result<(Vec<S>, Unread)> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = mpsc::sync_channel(CHUNKS_WAITING);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let adders: Vec<_> = (0..threads.min(THREADS_MAX))
            .map(|_| {
                let mut sum = empty();
                let (receiver, add) = (&receiver, &add);
                scope.spawn(move || {
                    let mut unread = Unread::default();
                    while let Some(chunk) = next(receiver) {
                        let mut from = 0;
                        for end in chunk.ends {
                            if let Some(record) = parse(&chunk.bytes[from..end], &mut unread) {
                                add(&mut sum, record);
                            }
                            from = end;
                        }
                    }
                    (sum, unread)
                })
            })
            .collect();
        let mut unread = Unread::default();
        let read = read_all(sources, &sender, &mut unread);
        drop(sender);
        let mut sums = Vec::new();
        for adder in adders {
            let (sum, of_adder) = adder
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))?;
            sums.push(sum);
            unread.merge(of_adder);
        }
        read.map(|()| (sums, unread))
    })
}

/// Returns the next chunk. `None` at the end.
fn next(receiver: &Mutex<Receiver<Chunk>>) -> Option<Chunk> {
    receiver.lock().ok()?.recv().ok()
}

/// Passes the lines of all sources on.
fn read_all(
    sources: impl IntoIterator<Item = io::Result<Box<dyn BufRead + Send>>>,
    sender: &mpsc::SyncSender<Chunk>,
    unread: &mut Unread,
) -> io::Result<()> {
    let mut chunk = Chunk::default();
    let mut line = Vec::new();
    for source in sources {
        let mut source = source?;
        while next_line(&mut source, &mut line, unread)? {
            chunk.bytes.extend_from_slice(&line);
            chunk.ends.push(chunk.bytes.len());
            if chunk.bytes.len() >= CHUNK_BYTES && sender.send(std::mem::take(&mut chunk)).is_err()
            {
                return Ok(());
            }
        }
    }
    /* It fails when all threads have ended, which is reported. */
    let _ = sender.send(chunk);
    Ok(())
}
