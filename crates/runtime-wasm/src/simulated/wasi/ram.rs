//! A guest's linear memory, read and written within its bounds.

use super::Errno;

/// The most pieces of one read or write.
const PIECES_MAX: u32 = 1_024;

/// Linear memory.
pub(super) struct Ram<'a>(pub(super) &'a mut [u8]);

impl Ram<'_> {
    pub(super) fn bytes(&self, at: u32, len: u32) -> Result<&[u8], Errno> {
        let start = at as usize;
        self.0.get(start..start + len as usize).ok_or(Errno::FAULT)
    }

    pub(super) fn bytes_mut(&mut self, at: u32, len: u32) -> Result<&mut [u8], Errno> {
        let start = at as usize;
        self.0.get_mut(start..start + len as usize).ok_or(Errno::FAULT)
    }

    pub(super) fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), Errno> {
        let len = u32::try_from(bytes.len()).map_err(|_| Errno::FAULT)?;
        self.bytes_mut(at, len)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u32(&self, at: u32) -> Result<u32, Errno> {
        let bytes = self.bytes(at, 4)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
    }

    pub(super) fn u64(&self, at: u32) -> Result<u64, Errno> {
        let bytes = self.bytes(at, 8)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    /// A text, such as a path.
    pub(super) fn text(&self, at: u32, len: u32) -> Result<String, Errno> {
        let text = std::str::from_utf8(self.bytes(at, len)?).map_err(|_| Errno::ILSEQ)?;
        if text.contains('\0') { Err(Errno::INVAL) } else { Ok(text.to_owned()) }
    }

    /// The pieces of a read or write: where each lies, and how long it is.
    pub(super) fn pieces(&self, at: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
        if count > PIECES_MAX {
            return Err(Errno::INVAL);
        }
        let piece = |index: u32| {
            let len_at = at.checked_add(index * 8 + 4).ok_or(Errno::FAULT)?;
            let (start, len) = (self.u32(len_at - 4)?, self.u32(len_at)?);
            self.bytes(start, len)?;
            Ok((start, len))
        };
        (0..count).map(piece).collect()
    }
}
