//! How full the volume is that a folder lies on.
//! Must not fail a scrape: where the system does not tell, nothing is shown.

use std::path::Path;

use rustix::fs::statvfs;

/// Bytes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Taken.
    pub(super) used: u64,
    /// There for this user; what only root may take is in neither.
    pub(super) free: u64,
    /// All.
    pub(super) total: u64,
}

/// The room of the volume that `folder` lies on, or will lie on once it is made.
pub(super) fn room(folder: &Path) -> Option<Room> {
    // The last ancestor of a relative path is the empty one, which is the working folder.
    let mut ancestors = folder.ancestors().map(|path| if path == Path::new("") { Path::new(".") } else { path });
    let volume = statvfs(ancestors.find(|path| path.exists())?).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
    let used = volume.f_blocks.saturating_sub(volume.f_bfree);
    Some(Room { used: bytes(used), free: bytes(volume.f_bavail), total: bytes(volume.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_where_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let there = room(folder.path()).unwrap();
        assert_eq!(room(&folder.path().join("run/checkpoint")).unwrap().total, there.total);
        assert!(there.free > 0 && there.used + there.free <= there.total, "{there:?}");
    }

    #[test]
    fn a_relative_folder_lies_on_the_volume_of_the_working_folder() {
        assert_eq!(room(Path::new("not-there/run")).unwrap().total, room(Path::new(".")).unwrap().total);
    }
}
