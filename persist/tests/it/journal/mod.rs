//! The journal: damage, power cuts, full disks, segments.

mod damage;
mod power;
mod room;
mod segments;
mod support;
