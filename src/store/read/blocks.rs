//! Decoded blocks that are kept for a while, and who is decoding which one now.
//!
//! Invariant B1: kept blocks, blocks that are being decoded to be kept, and blocks that a reader
//! still holds take no more than the limit together, the tables' room for them counted in. What finds
//! no room is not kept: it costs its reader the time, and nobody memory.
//! Invariant B2: a block is decoded by one thread at a time; others wait for it. A thread that holds
//! claims waits only for blocks that are less deep than all of them, so that none waits in a circle.
//! Nothing here knows how a block is decoded. What is kept was checked by whoever kept it.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::format::codec::BLOCK_BYTES;
use crate::format::ids::ChunkId;

/// A block of a chunk.
pub type BlockKey = (ChunkId, u32);

/// Parts of the cache with a lock of their own.
const SHARD_COUNT: usize = 16;
/// What a kept block takes beside its bytes: its place in the tables, about.
const ENTRY_BYTES: u64 = 256;
/// Whole blocks that wait to be used again. They count as kept.
const SPARE_MAX: usize = 16;
/// A record's depth before it was looked up: nobody less deep waits for it.
pub const DEPTH_UNKNOWN: u8 = u8::MAX;

/// The plain bytes of a block; gives its room back when the last holder drops it.
pub struct Block {
    bytes: Box<[u8]>,
    /// `None` for one that is in nobody's account: its thread drops it soon.
    budget: Option<Arc<Budget>>,
}

impl Block {
    /// A block outside the limit, for a thread that cannot go on without; at most one for each
    /// record of a chain that is being read.
    pub fn loose(len: usize) -> Self {
        Self { bytes: vec![0; len].into(), budget: None }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// The account of all blocks (B1).
struct Budget {
    limit: u64,
    used: AtomicU64,
    /// Whole blocks for the next to come: allocating one costs as much as a tenth of decoding it.
    /// No lock is taken while it is held.
    spare: Mutex<Vec<Box<[u8]>>>,
}

fn cost(len: usize) -> u64 {
    len as u64 + ENTRY_BYTES
}

impl Budget {
    /// Room for a block, where there is any. Its bytes are whatever was there before.
    fn take(self: &Arc<Self>, len: usize) -> Option<Block> {
        let spare = if len == BLOCK_BYTES { self.spare.lock().pop() } else { None };
        let bytes = match spare {
            Some(bytes) => bytes,
            None => {
                let more = |used: u64| used.checked_add(cost(len)).filter(|it| *it <= self.limit);
                self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
                vec![0; len].into()
            }
        };
        Some(Block { bytes, budget: Some(Arc::clone(self)) })
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let len = bytes.len();
        if len == BLOCK_BYTES {
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_MAX {
                spare.push(bytes);
                return;
            }
        }
        drop(bytes);
        self.used.fetch_sub(cost(len), Ordering::AcqRel);
    }

    fn drop_spare(&self) -> bool {
        let spare = self.spare.lock().pop();
        if let Some(bytes) = &spare {
            self.used.fetch_sub(cost(bytes.len()), Ordering::AcqRel);
        }
        spare.is_some()
    }
}

/// How a block that is being decoded ends.
enum Landing {
    Flying,
    Kept(Arc<Block>),
    /// Its bytes went elsewhere, or it could not be decoded: whoever waits does it anew, and meets
    /// what is wrong by itself.
    Gone,
}

/// A block that is being decoded.
pub struct Flight {
    /// Of the record that is read; falls once, from [`DEPTH_UNKNOWN`].
    depth: AtomicU8,
    /// Readers that wait; changed under the lock of its shard only.
    waiting: AtomicUsize,
    /// No lock is taken while it is held.
    landing: Mutex<Landing>,
    landed: Condvar,
}

impl Flight {
    /// Waits for the block; `None` where it has to be decoded anew. Takes no longer than decoding.
    pub fn wait(&self) -> Option<Arc<Block>> {
        let mut landing = self.landing.lock();
        loop {
            match &*landing {
                Landing::Flying => self.landed.wait(&mut landing),
                Landing::Kept(block) => return Some(Arc::clone(block)),
                Landing::Gone => return None,
            }
        }
    }
}

struct Kept {
    block: Arc<Block>,
    /// Since it was last looked at for eviction.
    used: bool,
    /// Tells its place in the queue from an older one of the same key.
    ticket: u64,
}

enum Slot {
    Kept(Kept),
    Flying(Arc<Flight>),
}

#[derive(Default)]
struct Shard {
    slots: HashMap<BlockKey, Slot>,
    /// Kept blocks in the order in which they are looked at for eviction; also some that are gone.
    queue: VecDeque<(BlockKey, u64)>,
}

impl Shard {
    fn keep(&mut self, key: BlockKey, block: Arc<Block>, ticket: u64, used: bool) {
        self.slots.insert(key, Slot::Kept(Kept { block, used, ticket }));
        self.queue.push_back((key, ticket));
        if 2 * self.slots.len() + 32 < self.queue.len() {
            let slots = &self.slots;
            self.queue.retain(
                |(key, number)| matches!(slots.get(key), Some(Slot::Kept(it)) if it.ticket == *number),
            );
        }
    }

    /// Removes the block that was kept longest and not used since: second chance.
    fn evict(&mut self) -> Option<Arc<Block>> {
        // Twice round: each chance is used up in the first.
        for _ in 0..2 * self.queue.len() {
            let (key, number) = self.queue.pop_front()?;
            match self.slots.get_mut(&key) {
                Some(Slot::Kept(kept)) if kept.ticket == number => {
                    if !std::mem::take(&mut kept.used) {
                        return self.take(&key);
                    }
                    self.queue.push_back((key, number));
                }
                _ => {}
            }
        }
        None
    }

    fn take(&mut self, key: &BlockKey) -> Option<Arc<Block>> {
        match self.slots.remove(key) {
            Some(Slot::Kept(kept)) => Some(kept.block),
            Some(flying) => {
                self.slots.insert(*key, flying);
                None
            }
            None => None,
        }
    }
}

/// What became of a look for a block.
pub enum Look<'a> {
    Kept(Arc<Block>),
    /// It is nowhere: the caller is to decode it.
    Mine(Claim<'a>),
    /// Somebody decodes it.
    Busy(Arc<Flight>),
}

/// Whether a block will be wanted again soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// The last byte of a block is read in a stream: the kernel has all of it then.
    Once,
    Again,
}

/// Decoded blocks, at most so many bytes.
pub struct BlockCache {
    /// Each guards its part of the keys. No two are held at a time; a flight's lock may be taken.
    shards: [Mutex<Shard>; SHARD_COUNT],
    budget: Arc<Budget>,
    ticket: AtomicU64,
    /// The shard that is to give up a block next.
    hand: AtomicUsize,
}

impl BlockCache {
    pub fn new(limit: u64) -> Self {
        let budget = Budget { limit, used: AtomicU64::new(0), spare: Mutex::default() };
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            budget: Arc::new(budget),
            ticket: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.budget.limit
    }

    fn shard(&self, key: &BlockKey) -> &Mutex<Shard> {
        // An id is a digest: any byte of it is as good as a hash.
        &self.shards[(usize::from(key.0.as_bytes()[0]) + key.1 as usize) % SHARD_COUNT]
    }

    /// Looks for a block, and claims it where it is nowhere.
    pub fn look(&self, key: BlockKey, usage: Use) -> Look<'_> {
        self.look_below(key, usage, DEPTH_UNKNOWN, DEPTH_UNKNOWN).expect("all may be waited for")
    }

    /// The same for one who holds claims: `None` where the block is being decoded and may not be
    /// waited for, since it is not less deep than `below` (B2). A claim says that it is `depth` deep.
    pub fn look_below(&self, key: BlockKey, usage: Use, depth: u8, below: u8) -> Option<Look<'_>> {
        let mut shard = self.shard(&key).lock();
        match shard.slots.get_mut(&key) {
            Some(Slot::Kept(kept)) => {
                kept.used = true;
                let block = Arc::clone(&kept.block);
                if usage == Use::Once {
                    shard.take(&key);
                }
                Some(Look::Kept(block))
            }
            Some(Slot::Flying(flight)) => {
                let waits = below == DEPTH_UNKNOWN || flight.depth.load(Ordering::Acquire) < below;
                waits.then(|| {
                    flight.waiting.fetch_add(1, Ordering::AcqRel);
                    Look::Busy(Arc::clone(flight))
                })
            }
            None => Some(Look::Mine(self.claim_in(&mut shard, key, depth))),
        }
    }

    /// Claims a block that is nowhere, for reading ahead.
    pub fn claim(&self, key: BlockKey) -> Option<Claim<'_>> {
        let mut shard = self.shard(&key).lock();
        let absent = !shard.slots.contains_key(&key);
        absent.then(|| self.claim_in(&mut shard, key, DEPTH_UNKNOWN))
    }

    fn claim_in(&self, shard: &mut Shard, key: BlockKey, depth: u8) -> Claim<'_> {
        let flight = Arc::new(Flight {
            depth: AtomicU8::new(depth),
            waiting: AtomicUsize::new(0),
            landing: Mutex::new(Landing::Flying),
            landed: Condvar::new(),
        });
        shard.slots.insert(key, Slot::Flying(Arc::clone(&flight)));
        Claim { cache: self, key, flight, landed: false }
    }

    /// Room for a block that is to be kept; blocks that were not used lately go for it. `None` where
    /// all room is taken by blocks that are in use.
    pub fn room(&self, len: usize) -> Option<Block> {
        loop {
            if let Some(block) = self.budget.take(len) {
                return Some(block);
            }
            // Not needed as what it is: a smaller block is wanted.
            if !self.budget.drop_spare() && !self.evict() {
                return None;
            }
        }
    }

    fn evict(&self) -> bool {
        let first = self.hand.fetch_add(1, Ordering::Relaxed);
        (0..SHARD_COUNT).any(|step| {
            let evicted = self.shards[(first + step) % SHARD_COUNT].lock().evict();
            // Dropped here, after the shard's lock.
            evicted.is_some()
        })
    }

    /// Drops a block that will not be wanted again soon.
    pub fn drop_block(&self, key: &BlockKey) {
        let block = self.shard(key).lock().take(key);
        drop(block);
    }

    /// Drops all that is kept.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.slots.retain(|_, slot| matches!(slot, Slot::Flying(_)));
            shard.queue.clear();
        }
        while self.budget.drop_spare() {}
    }

    #[cfg(test)]
    pub fn used_bytes(&self) -> u64 {
        self.budget.used.load(Ordering::Acquire)
    }
}

/// The right, and the duty, to decode a block: who waits is woken when it is dropped.
pub struct Claim<'a> {
    cache: &'a BlockCache,
    key: BlockKey,
    flight: Arc<Flight>,
    landed: bool,
}

impl Claim<'_> {
    pub fn index(&self) -> u32 {
        self.key.1
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.flight.waiting.load(Ordering::Acquire)
    }

    /// Says how deep the record is that is read.
    pub fn set_depth(&self, depth: u8) {
        self.flight.depth.store(depth, Ordering::Release);
    }

    /// Keeps the block, which was decoded and checked, for whoever waits and whoever comes.
    pub fn keep(&mut self, block: Block, usage: Use) -> Arc<Block> {
        let block = Arc::new(block);
        let ticket = self.cache.ticket.fetch_add(1, Ordering::Relaxed);
        let kept = Arc::clone(&block);
        let lasts = block.budget.is_some();
        let mut shard = self.cache.shard(&self.key).lock();
        if lasts {
            shard.keep(self.key, kept, ticket, usage == Use::Again);
        } else {
            shard.slots.remove(&self.key);
        }
        drop(shard);
        self.land(Landing::Kept(Arc::clone(&block)));
        block
    }

    /// Ends the claim on a block whose bytes, which were checked, went to a reader straight; they
    /// are copied only where another reader waits for them.
    pub fn pass(&mut self, plain: &[u8]) {
        let mut shard = self.cache.shard(&self.key).lock();
        if self.flight.waiting.load(Ordering::Acquire) == 0 {
            shard.slots.remove(&self.key);
            // Nobody knows of the flight any more.
            self.landed = true;
            return;
        }
        drop(shard);
        if let Some(mut block) = self.cache.room(plain.len()) {
            block.bytes_mut().copy_from_slice(plain);
            self.keep(block, Use::Once);
        }
    }

    fn land(&mut self, how: Landing) {
        self.landed = true;
        *self.flight.landing.lock() = how;
        self.flight.landed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.cache.shard(&self.key).lock().slots.remove(&self.key);
            self.land(Landing::Gone);
        }
    }
}
