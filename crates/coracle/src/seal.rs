//! Sealing of what is kept on disk: the log, snapshots, checkpoints and private keys are unreadable without a file of keys.
//!
//! A sealed text is AES-256-GCM under a key of its own, derived from the file's key and a random salt: so any number of
//! records can be sealed with random nonces, and never is one derived from a place in the log, which may be written twice.
//! Nothing here knows what it seals; where a text belongs (its purpose) is bound to it, so that none can stand in for another.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hmac, pbkdf2};
use sha2::{Digest as _, Sha256};

use crate::node::private_file;
use crate::{Error, ErrorKind};

/// The layout of a sealed text; a newer one is refused.
const FORMAT: u8 = 1;
pub(crate) const SALT: usize = 16;
const ID: usize = 4;
const HEAD: usize = 1 + ID + SALT + NONCE_LEN;
/// How often a passphrase is hashed (OWASP's number for PBKDF2 with SHA-256): a guess takes a tenth of a second.
const PASSPHRASE_ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");
/// What a file of keys begins with.
const HEADING: &str = "# The key to a Coracle cluster's data, newest first. Without this file the data cannot be read: keep a copy elsewhere.\n";

/// The keys to a data directory.
#[derive(Clone)]
pub(crate) struct Sealer {
    path: PathBuf,
    /// The first one seals; all of them open.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: [u8; ID],
    bytes: [u8; 32],
}

/// Why a sealed text cannot be opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// It was changed, or is none.
    #[error("it is damaged, or was not sealed for this place")]
    Damaged,
    /// It was sealed by a later version.
    #[error("it was sealed by a newer version of Coracle (format {0})")]
    Newer(u8),
    /// It was sealed with a key that is not in the file.
    #[error("it is sealed with a key that is not in the key file")]
    UnknownKey,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).field("keys", &self.keys.len()).finish()
    }
}

impl Sealer {
    /// The keys of a file; where `create` allows it a file that is not there is made, with a new key.
    pub(crate) fn open_file(path: &Path, create: bool) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
                let sealer = Self { path: path.to_owned(), keys: vec![Key::generate()?] };
                sealer.write()?;
                return Ok(sealer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("the key to the data, {}, is missing: put it back from its copy", path.display());
                return Err(Error::new(ErrorKind::DataDirectory, message));
            }
            Err(error) => return Err(Error::file("read", path, error)),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Option<Vec<Key>> = lines.map(Key::parse).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self { path: path.to_owned(), keys }),
            _ => Err(Error::new(ErrorKind::Corrupt, format!("{} is no key file", path.display()))),
        }
    }

    /// The key that a passphrase stands for; it is in no file.
    pub(crate) fn of_passphrase(passphrase: &str, salt: &[u8; SALT]) -> Self {
        let mut bytes = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, PASSPHRASE_ROUNDS, salt, passphrase.as_bytes(), &mut bytes);
        Self { path: PathBuf::new(), keys: vec![Key::new(bytes)] }
    }

    /// The file that the keys are in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Seals a text for a purpose.
    pub(crate) fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let key = &self.keys[0];
        let mut sealed = Vec::with_capacity(HEAD + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&key.id);
        sealed.resize(HEAD, 0);
        random(&mut sealed[1 + ID..]).expect("the operating system gave randomness for the key");
        let (derived, nonce) = key.derive(&sealed[1 + ID..HEAD]);
        sealed.extend_from_slice(plain);
        let (head, body) = sealed.split_at_mut(HEAD);
        let aad = associated(purpose, head);
        let tag = derived.seal_in_place_separate_tag(nonce, Aad::from(aad), body).expect("a text of less than 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for the same purpose.
    pub(crate) fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        match sealed.first() {
            Some(&FORMAT) if sealed.len() >= HEAD => {}
            Some(&newer) if newer > FORMAT => return Err(OpenError::Newer(newer)),
            _ => return Err(OpenError::Damaged),
        }
        let (head, body) = sealed.split_at(HEAD);
        let key = self.keys.iter().find(|key| key.id == head[1..=ID]).ok_or(OpenError::UnknownKey)?;
        let (derived, nonce) = key.derive(&head[1 + ID..]);
        let mut body = body.to_vec();
        let aad = associated(purpose, head);
        let length = derived.open_in_place(nonce, Aad::from(aad), &mut body).map_err(|_| OpenError::Damaged)?.len();
        body.truncate(length);
        Ok(body)
    }

    /// Puts a new key in front, in the file too: from here on it seals, and the older ones still open.
    pub(crate) fn rotate(&mut self) -> Result<(), Error> {
        self.keys.insert(0, Key::generate()?);
        self.write()
    }

    /// Forgets every key but the newest, when nothing is sealed with the others any more.
    pub(crate) fn forget_older(&mut self) -> Result<(), Error> {
        self.keys.truncate(1);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let failed = |source| Error::file("write", &self.path, source);
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut text = HEADING.to_owned();
        for key in &self.keys {
            text.push_str(&hexadecimal(&key.bytes));
            text.push('\n');
        }
        let unfinished = self.path.with_extension("unfinished");
        let mut file = private_file(&unfinished).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&unfinished, &self.path).map_err(failed)?;
        match self.path.parent() {
            // The key must be as durable as what is sealed with it.
            Some(folder) => fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
            None => Ok(()),
        }
    }
}

impl Key {
    fn new(bytes: [u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(b"coracle key id").chain_update(bytes).finalize();
        let mut id = [0; ID];
        id.copy_from_slice(&digest[..ID]);
        Self { id, bytes }
    }

    fn generate() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        random(&mut bytes)?;
        Ok(Self::new(bytes))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if line.len() != 64 || !line.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&line[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self::new(bytes))
    }

    /// The key and nonce of one text: its first random bytes choose the key, the others are the nonce.
    fn derive(&self, random: &[u8]) -> (LessSafeKey, Nonce) {
        let (salt, nonce) = random.split_at(SALT);
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), salt);
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("HMAC-SHA256 gives 32 bytes");
        (LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).expect("it has the length of a nonce"))
    }
}

/// What a sealed text is bound to: its head and where it belongs.
fn associated(purpose: &str, head: &[u8]) -> Vec<u8> {
    [&head[..=ID], purpose.as_bytes()].concat()
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::randomness())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_file(&directory.path().join("keys/data.key"), true).unwrap();
        (directory, sealer)
    }

    #[test]
    fn what_is_sealed_is_opened_for_its_purpose_only() {
        let (_directory, sealer) = sealer();
        let sealed = sealer.seal("entry 7", b"hush");
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_eq!(sealer.open("entry 7", &sealed).unwrap(), b"hush");
        assert_eq!(sealer.open("entry 8", &sealed), Err(OpenError::Damaged));
        assert_ne!(sealer.seal("entry 7", b"hush"), sealed, "never twice the same");
    }

    #[test]
    fn a_flipped_bit_anywhere_and_a_missing_end_are_noticed() {
        let (_directory, sealer) = sealer();
        let sealed = sealer.seal("snapshot", b"state");
        for index in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[index] ^= 1;
            assert!(sealer.open("snapshot", &flipped).is_err(), "byte {index}");
            assert!(sealer.open("snapshot", &sealed[..index]).is_err(), "{index} bytes");
        }
        assert_eq!(sealer.open("snapshot", &[9; 100]), Err(OpenError::Newer(9)));
    }

    #[test]
    fn after_a_rotation_the_old_is_opened_until_it_is_forgotten() {
        let (_directory, mut sealer) = sealer();
        let old = sealer.seal("ca", b"key");
        sealer.rotate().unwrap();
        let again = Sealer::open_file(&sealer.path, false).unwrap();
        assert_eq!(again.open("ca", &old).unwrap(), b"key");
        let new = again.seal("ca", b"key");
        sealer.forget_older().unwrap();
        let again = Sealer::open_file(&sealer.path, false).unwrap();
        assert_eq!(again.open("ca", &new).unwrap(), b"key");
        assert_eq!(again.open("ca", &old), Err(OpenError::UnknownKey));
    }

    #[test]
    fn a_missing_or_foreign_key_file_is_said_in_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.key");
        let missing = Sealer::open_file(&path, false).unwrap_err();
        let expected = format!("the key to the data, {}, is missing: put it back from its copy", path.display());
        assert_eq!(missing.to_string(), expected);
        for text in ["", "no key\n", "# only a comment\n"] {
            fs::write(&path, text).unwrap();
            let foreign = Sealer::open_file(&path, true).unwrap_err();
            assert_eq!(foreign.to_string(), format!("{} is no key file", path.display()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_may_read_the_keys() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_directory, sealer) = sealer();
        assert_eq!(fs::metadata(&sealer.path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
