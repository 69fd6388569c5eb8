mod key;
mod layer;
