//! The journal and its commits: damage, power cuts, full disks, segments.

mod commit;
mod damage;
mod power;
mod room;
mod segments;
mod support;
