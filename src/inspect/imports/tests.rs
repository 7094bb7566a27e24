//! Pickles, whole and broken.
