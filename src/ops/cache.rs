//! Caches of what can be made again, with room for large values.

use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// A cache that knows how much room each value takes.
pub type WeighedCache<K, V> = Cache<K, V, Weigher<K, V>>;

/// How much room a value takes.
#[derive(Clone)]
pub struct Weigher<K, V> {
    weight: fn(&K, &V) -> u64,
    /// A larger one counts as this much, so that it is kept like others: the last one is always there.
    weight_max: u64,
}

impl<K, V> Weighter<K, V> for Weigher<K, V> {
    fn weight(&self, key: &K, value: &V) -> u64 {
        (self.weight)(key, value).clamp(1, self.weight_max)
    }
}

/// An empty cache with so much room, and of about so many values.
pub fn weighed_cache<K: Eq + Hash + Clone, V: Clone>(
    typical: usize,
    room: u64,
    weight: fn(&K, &V) -> u64,
) -> WeighedCache<K, V> {
    // One shard: each would have its own part of the room, and a large value needs much of it.
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(typical)
        .weight_capacity(room)
        .build()
        .expect("all that is needed is given");
    let weigher = Weigher { weight, weight_max: room / 2 };
    Cache::with_options(
        options,
        weigher,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_is_kept_and_the_room_is_a_limit() {
        let cache = weighed_cache::<u64, u64>(256, 32 << 20, |_, value| *value);
        for (key, bytes) in [(1, 5 << 20), (2, 15 << 20), (3, 1 << 40)] {
            cache.insert(key, bytes);
            assert_eq!(cache.get(&key), Some(bytes));
        }
        for key in 10..100 {
            cache.insert(key, 1 << 20);
            assert!(cache.weight() <= 32 << 20, "{}", cache.weight());
        }
    }
}
