//! Frames that wait for one socket, bounded in bytes.

use crate::protocol::{Frame, is_commit, is_load, is_part};
use std::collections::VecDeque;

/// Frames for which an empty queue may keep room.
const AT_REST: usize = 8;

/// The queue's bound is reached: the session does not read. It is closed and resumes by its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A queue of shared frames. Counts every frame in full: a slow reader may be the last to hold it.
///
/// A batch that has begun is taken to its end, whatever its size: a first load or catch-up above the bound would
/// otherwise be closed, resumed, and closed again, for ever. The next batch is not taken until there is room. Rows that
/// are set aside are taken too: whoever reads them from PostgreSQL waits until sockets have taken enough of them, and of a
/// transaction that is passed through no more comes once [`Self::aside`] says that too many wait.
#[derive(Debug)]
pub struct SendQueue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of rows that are set aside, besides.
    aside: usize,
    most: usize,
    /// Inside a batch: its `commit` is still to come.
    open: bool,
}

impl SendQueue {
    /// Empty, with room for `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, aside: 0, most, open: false }
    }

    /// Adds a frame, unless there is no room. One larger than the whole bound is taken when the queue is empty.
    pub fn push(&mut self, frame: Frame) -> Result<(), Full> {
        self.push_within(frame, self.most)
    }

    /// The same with less room than usual, for there is little left in the node.
    pub fn push_within(&mut self, frame: Frame, most: usize) -> Result<(), Full> {
        if is_load(&frame) {
            self.aside += frame.len();
            self.frames.push_back(frame);
            return Ok(());
        }
        if !self.open && self.bytes > 0 && self.bytes + frame.len() > most.min(self.most) {
            return Err(Full);
        }
        self.open = (self.open || is_part(&frame)) && !is_commit(&frame);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        Ok(())
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        *(if is_load(&frame) { &mut self.aside } else { &mut self.bytes }) -= frame.len();
        Some(frame)
    }

    /// Nothing waits: lets go of the room that a burst took.
    pub fn rest(&mut self) {
        if self.frames.is_empty() && self.frames.capacity() > AT_REST {
            self.frames = VecDeque::new();
        }
    }

    /// Of these, the bytes of rows that are set aside.
    pub fn aside(&self) -> usize {
        self.aside
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes + self.aside
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::position::Lsn;
    use crate::protocol::{ack_frame, commit_frame};

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let mut queue = SendQueue::new(usize::MAX);
        (0..200).for_each(|_| queue.push("reply".into()).unwrap());
        queue.rest();
        assert!(queue.frames.capacity() >= 200, "something waits");
        while queue.pop().is_some() {}
        queue.rest();
        assert_eq!(queue.frames.capacity(), 0);
    }

    #[test]
    fn a_batch_is_taken_whole_and_the_next_one_not() {
        let mut queue = SendQueue::new(10);
        for _ in 0..3 {
            assert_eq!(queue.push(ack_frame(&[])), Ok(()));
        }
        assert_eq!(queue.push(commit_frame(Lsn(1), None, "c")), Ok(()));
        assert_eq!((queue.push(ack_frame(&[])), queue.push("reply".into())), (Err(Full), Err(Full)));
    }

    #[test]
    fn what_is_set_aside_is_paced_elsewhere() {
        let mut queue = SendQueue::new(10);
        let load: Frame = r#"[null,null,"sync","load",{"load":"1.0","shape":"s"}]"#.into();
        assert_eq!((queue.push(load.clone()), queue.push(load.clone())), (Ok(()), Ok(())));
        assert_eq!((queue.bytes(), queue.push("reply".into())), (2 * load.len(), Ok(())));
        assert_eq!(queue.push("another reply".into()), Err(Full));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(load.clone()), Some(load), Some("reply".into()))
        );
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn with_little_room_in_the_node_only_those_who_read_get_more() {
        let mut queue = SendQueue::new(100);
        assert_eq!(queue.push_within("12345678".into(), 10), Ok(()));
        assert_eq!(queue.push_within("123".into(), 10), Err(Full));
        assert_eq!(queue.push("123".into()), Ok(()));
        queue.pop();
        queue.pop();
        assert_eq!(queue.push_within("a frame larger than that".into(), 10), Ok(()));
    }

    #[test]
    fn is_bounded_in_bytes() {
        let mut queue = SendQueue::new(10);
        assert_eq!(queue.push("a frame larger than all".into()), Ok(()));
        assert_eq!(queue.push("b".into()), Err(Full));
        assert!(queue.pop().is_some());
        assert_eq!(
            (queue.bytes(), queue.push("12345".into()), queue.push("67890".into())),
            (0, Ok(()), Ok(()))
        );
        assert_eq!(queue.push("x".into()), Err(Full));
        assert_eq!(queue.bytes(), 10);
    }
}
