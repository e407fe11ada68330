mod backoff;
mod fake;
mod fixtures;
mod parsers;
mod publish;
mod tree;
