//! `make e2e`: runs of the operator on a real cluster of one node, in one cluster that all tests share.
//! Must not test what takes no node.

mod children;
mod life;
mod outside;
mod runs;
mod scraped;
mod troubles;
mod upgrades;
mod verbs;
