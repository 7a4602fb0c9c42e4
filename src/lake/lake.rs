//! An opened lake: its store and its identity.
//!
//! Guarantees: a lake holds the conversations of one API, exported with one set of filters; `claim` refuses any other
//! before anything is written.
//! Must not depend on: the lake's state.

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;

use super::identity::{Governed, Identity, Wanted};
use super::kept::KeptFiles;
use super::suppression::Suppression;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::MetadataColumn;
use crate::store::{Store, StoreCalls, StoreOptions, to_json};

/// The identity of a lake as it was read.
#[derive(Debug, Clone)]
pub struct Described {
    /// What it says.
    pub identity: Identity,
    /// The object that says so.
    object: ObjectMeta,
}

/// An opened lake; it need not exist yet.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Store,
    kept: KeptFiles,
}

impl Lake {
    /// Opens the lake at a path or URL. Local folders are created when something is written.
    ///
    /// # Errors
    /// If the URL names no supported store, or the store's configuration is incomplete.
    pub fn open(address: &str, options: &StoreOptions, clock: Clock) -> Result<Self> {
        Store::open(address, options, clock).map(Lake::on)
    }

    /// Opens the lake that begins where `store` does.
    pub fn on(store: Store) -> Self {
        Lake { store, kept: KeptFiles::default() }
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its just staged files that are in memory.
    pub fn kept_files(&self) -> &KeptFiles {
        &self.kept
    }

    /// Its URL or path, as people write it in queries.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// The clock that it was opened with.
    pub fn clock(&self) -> Clock {
        self.store.clock()
    }

    /// The calls made to the store since it was opened.
    pub fn calls(&self) -> StoreCalls {
        self.store.calls()
    }

    /// Reads the lake's identity; `None` if nothing was ever exported to it.
    ///
    /// # Errors
    /// If the store fails, or a newer version of this program created the lake.
    pub async fn describe(&self) -> Result<Option<Identity>> {
        Ok(self.described().await?.map(|described| described.identity))
    }

    /// As [`Lake::describe`], with what [`Lake::claim`] needs.
    ///
    /// # Errors
    /// As [`Lake::describe`].
    pub async fn described(&self) -> Result<Option<Described>> {
        let Some(found) = self.store.request(&layout::identity()).await? else { return Ok(None) };
        let object = found.meta().clone();
        let bytes = found.read().await?;
        let identity: Identity = self.store.parse(&layout::identity(), &bytes)?;
        identity.check_known(self.url())?;
        Ok(Some(Described { identity, object }))
    }

    /// Reads the identity of a lake that has to exist.
    ///
    /// # Errors
    /// Kind `Usage` if there is no lake; else as [`Lake::describe`].
    pub async fn existing(&self) -> Result<Identity> {
        self.describe().await?.ok_or_else(|| {
            Error::usage(format!("there is no lake at {}", self.url()))
                .with_hint("check --lake or DECAGON_LAKE; `decagon-lake sync --lake …` creates a lake")
        })
    }

    /// The conversations that must not come back to the lake with this `identity`.
    ///
    /// # Errors
    /// If the store fails; kind `Integrity` if they are lost.
    pub async fn suppression(&self, identity: &Identity) -> Result<Suppression> {
        if !identity.suppresses {
            return Ok(Suppression::default());
        }
        let suppression = Suppression::load(&self.store).await?;
        if suppression.is_stored() {
            return Ok(suppression);
        }
        Err(Error::integrity(format!("{}/{} is missing", self.url(), layout::suppression())).with_hint(
            "restore it from a backup: it says which conversations must not come back; without one, remove \
             \"suppresses\" from _state/lake.json, and forget these people again",
        ))
    }

    /// Stores the conversations that must not come back. Programs that do not know them refuse the lake from then on.
    ///
    /// # Errors
    /// If the store fails; kind `Held` if another run has changed the lake.
    pub async fn suppress(&self, suppression: &mut Suppression) -> Result<Identity> {
        suppression.save(&self.store).await?;
        let Some(Described { identity, object }) = self.described().await? else { return self.existing().await };
        if identity.suppresses {
            return Ok(identity);
        }
        let suppressing = identity.suppressing();
        self.store.replace(&layout::identity(), Some(&object), to_json(&suppressing)?).await?;
        Ok(suppressing)
    }

    /// Makes sure that the lake, as it was `found`, is as `wanted`, and returns its identity. If it `is_new`, with no
    /// commit yet, decides it; else it gets the columns that it lacks.
    ///
    /// # Errors
    /// Kind `Usage` if the lake is another one; `Held` if another run has decided since.
    pub async fn claim(
        &self,
        found: Option<Described>,
        wanted: Wanted<'_>,
        is_new: bool,
        now: DateTime<Utc>,
    ) -> Result<Identity> {
        let key = layout::identity();
        match found {
            Some(found) if !is_new && found.identity.suits(wanted) => {
                self.grow(found, None, wanted.metadata_columns, Some(wanted.governed)).await
            }
            Some(found) if !is_new => Err(found.identity.contradicts(self.url(), wanted)),
            None if !is_new => Err(Error::integrity(format!("{}/{key} is missing", self.url()))
                .with_hint("restore it from a backup: it says whose conversations the lake holds")),
            found => {
                let identity = Identity::decided(wanted, found.as_ref().map(|found| &found.identity), now)?;
                let object = found.map(|found| found.object);
                self.store.replace(&key, object.as_ref(), to_json(&identity)?).await?;
                Ok(identity)
            }
        }
    }

    /// Gives the lake the newest schema before anything is written to it, and returns its identity.
    ///
    /// # Errors
    /// As [`Lake::existing`]; `Held` if another run has changed it since.
    pub async fn evolve(&self) -> Result<Identity> {
        self.change(None, &[], None).await
    }

    /// The same with these columns of metadata as well, with another API as the source of its conversations, and with
    /// a policy.
    ///
    /// # Errors
    /// As [`Lake::evolve`]; kind `Usage` if the columns contradict those that it has, or the policy shows more than its
    /// own.
    pub async fn change(
        &self,
        base_url: Option<&str>,
        metadata_columns: &[MetadataColumn],
        governed: Option<Governed<'_>>,
    ) -> Result<Identity> {
        match self.described().await? {
            Some(found) => self.grow(found, base_url, metadata_columns, governed).await,
            None => self.existing().await,
        }
    }

    /// Adds what the lake lacks of the newest schema and of the `wanted` columns. Programs that do not know these
    /// refuse the lake from then on.
    async fn grow(
        &self,
        found: Described,
        base_url: Option<&str>,
        wanted: &[MetadataColumn],
        governed: Option<Governed<'_>>,
    ) -> Result<Identity> {
        let Described { identity, object } = found;
        let mut grown = identity.clone().grown(wanted)?;
        if let Some(governed) = governed {
            grown = grown.governed(governed)?;
        }
        if let Some(base_url) = base_url {
            base_url.clone_into(&mut grown.base_url);
        }
        if grown != identity {
            self.store.replace(&layout::identity(), Some(&object), to_json(&grown)?).await?;
        }
        Ok(grown)
    }
}
