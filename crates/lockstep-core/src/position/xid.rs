//! Transaction ids.

/// A 64-bit top-level transaction id. Savepoints have ids of their own, which never appear here.
pub type Xid = u64;

/// The 64-bit id of the stream's 32-bit one, given any 64-bit id `reference` within 2^31 of it.
///
/// `reference - int32(reference32 - xid32)`, right across the wrap of the 32-bit counter.
/// ```
/// use lockstep_core::position::widen;
/// assert_eq!(widen(800, 790), 790);
/// assert_eq!(widen(0x1_0000_0005, 0xFFFF_FFF0), 0xFFFF_FFF0); // before the wrap
/// assert_eq!(widen(0x0_FFFF_FFF0, 3), 0x1_0000_0003); // after it
/// ```
pub fn widen(reference: Xid, xid32: u32) -> Xid {
    let distance = (reference as u32).wrapping_sub(xid32) as i32;
    reference.wrapping_sub(distance as i64 as u64)
}
