//! The file of a log.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// A file that lines are appended to, also by several processes.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    open: Mutex<File>,
    #[cfg(feature = "rotation")]
    rotation: Option<crate::Rotation>,
}

impl LogFile {
    /// Opens the file at `path`, and makes it and its directory where there is none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        Ok(Self {
            open: Mutex::new(open(path)?),
            path: path.to_owned(),
            #[cfg(feature = "rotation")]
            rotation: None,
        })
    }

    #[cfg(feature = "rotation")]
    pub(crate) fn with_rotation(self, rotation: crate::Rotation) -> Self {
        Self { rotation: Some(rotation), ..self }
    }

    /// Appends `line` in one piece. A failure is nobody's to hear of.
    pub(crate) fn write(&self, line: &[u8], time: SystemTime) {
        let mut file = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut file, line, time);
        let _full_disk = file.write_all(line);
    }

    #[cfg(feature = "rotation")]
    fn make_room(&self, file: &mut File, line: &[u8], time: SystemTime) {
        if let Some(rotation) = &self.rotation
            && let Ok(Some(new)) = rotation.make_room(&self.path, file, line.len(), time)
        {
            *file = new;
        }
    }

    #[cfg(not(feature = "rotation"))]
    fn make_room(&self, _: &mut File, _: &[u8], _: SystemTime) {
        let _it_only_grows = &self.path;
    }
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
