//! A fake Ploton, to test against.
