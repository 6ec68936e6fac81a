//! Asks for many small things concurrently: one at a time takes minutes on a distant store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::ctx::Cancel;

/// Objects that are read at the same time. A store that answers in 20 ms gives 800 of them per second,
/// below what S3 allows for one prefix (5500 per second).
const READERS: usize = 16;

/// What `read` makes of each item, in the items' order, with several reads under way at a time. What is
/// wrong with one item belongs into `T`; an error ends the whole, and no other read begins.
///
/// # Errors
/// The first one of `read`; that the run is to stop; that no thread can be started.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    cancel: &Cancel,
    read: impl Fn(&I) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    each_of_few(items, READERS, cancel, read)
}

/// The same with no more than so many under way at a time.
///
/// # Errors
/// As [`each`].
pub fn each_of_few<I: Sync, T: Send>(
    items: &[I],
    at_a_time: usize,
    cancel: &Cancel,
    read: impl Fn(&I) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || -> anyhow::Result<()> {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let made = cancel.check().map_err(Into::into).and_then(|()| read(item));
            let made = made.inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, made));
        }
        Ok(())
    };
    thread::scope(|scope| -> anyhow::Result<()> {
        let mut readers = Vec::new();
        for _ in 0..at_a_time.min(items.len()) {
            let reader = thread::Builder::new().name("concurrent".into());
            readers.push(reader.spawn_scoped(scope, work)?);
        }
        let ends = readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // Every thread is waited for before the first error is told.
        ends.collect::<Vec<_>>().into_iter().collect()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::{READERS, each};
    use crate::ctx::Cancel;

    #[test]
    fn items_keep_their_order_and_are_read_at_once() {
        let items: Vec<usize> = (0..READERS * 4).collect();
        // Nobody passes before sixteen are there.
        let barrier = Barrier::new(READERS);
        let read = each(&items, &Cancel::default(), |item| {
            barrier.wait();
            Ok(item * 2)
        });
        assert_eq!(read.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(each(&[] as &[usize], &Cancel::default(), |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn an_error_ends_all_of_it() {
        let items: Vec<usize> = (0..100_000).collect();
        let (reads, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let error = each(&items, &Cancel::default(), |item| {
            reads.fetch_add(1, Ordering::Relaxed);
            if *item == 40 {
                failed.store(true, Ordering::Relaxed);
                return Err(anyhow::anyhow!("item 40"));
            }
            // Whoever has that one may be the last to be given a processor.
            thread::yield_now();
            while *item > 40 && !failed.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            // And it has to be given one once more, to say that it failed.
            if failed.load(Ordering::Relaxed) {
                thread::park_timeout(Duration::from_millis(1));
            }
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "item 40");
        assert!(reads.load(Ordering::Relaxed) < items.len());
    }

    #[test]
    fn the_wish_to_stop_ends_it() {
        let cancel = Cancel::default();
        cancel.cell().store(15, Ordering::Relaxed);
        assert!(each(&[1], &cancel, |_| Ok(())).is_err());
    }
}
