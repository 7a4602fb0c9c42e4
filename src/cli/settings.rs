//! From what was typed to the settings of a run.

use super::args::{
    ApiArgs, BackfillArgs, CompactArgs, ExportArgs, FetchArgs, FlushArgs, ForgetArgs, ReconcileArgs, SyncArgs,
    UpgradeArgs,
};
use super::{logging, policy};
use crate::api::{ApiKey, Options, RetryPolicy, endpoint};
use crate::error::{Error, Result};
use crate::export::FlushPolicy;
use crate::run::{
    BackfillSettings, CompactSettings, Control, ExportSettings, FetchSettings, ForgetSettings, ReconcileSettings,
    SyncSettings, UpgradeSettings,
};

/// The environment variable that holds the API key. Never a flag: it would show in the list of processes.
const API_KEY: &str = "DECAGON_API_KEY";

impl SyncArgs {
    /// # Errors
    /// If `--retain` is too short.
    pub(super) fn settings(&self, control: &Control) -> Result<SyncSettings> {
        Ok(SyncSettings {
            export: self.export.settings(control)?,
            retain: self.keep.retain()?,
            compact_every_pages: self.compact_every,
        })
    }
}

impl ExportArgs {
    /// # Errors
    /// If the policy or its key cannot be read.
    pub(super) fn settings(&self, control: &Control) -> Result<ExportSettings> {
        let (overlap, on_ignored_filter) = (self.overlap, self.on_ignored_filter);
        Ok(ExportSettings { overlap, on_ignored_filter, fetch: self.fetch.settings(control)? })
    }
}

impl BackfillArgs {
    /// # Errors
    /// If the policy or its key cannot be read.
    pub(super) fn settings(&self, control: &Control) -> Result<BackfillSettings> {
        let BackfillArgs { from, to, timestamp_filter, ref fetch } = *self;
        Ok(BackfillSettings { from, to, timestamp_filter, fetch: fetch.settings(control)? })
    }
}

impl CompactArgs {
    /// # Errors
    /// If `--retain` is too short.
    pub(super) fn settings(&self, control: &Control) -> Result<CompactSettings> {
        let (history, control) = (self.history.history(), control.clone());
        Ok(CompactSettings {
            retain: self.keep.retain()?,
            history,
            policy_key: policy::key(&self.policy_key)?,
            control,
        })
    }
}

impl ForgetArgs {
    /// # Errors
    /// If `--retain` is too short, or the file of people cannot be read.
    pub(super) fn settings(&self, control: &Control) -> Result<ForgetSettings> {
        let ForgetArgs { lift, dry_run, ref reason, ref compact, .. } = *self;
        let (selectors, compact) = (self.selectors()?, compact.settings(control)?);
        Ok(ForgetSettings { selectors, lift, dry_run, reason: reason.clone(), compact })
    }
}

impl UpgradeArgs {
    /// # Errors
    /// If `--retain` is too short, or no API has such an address.
    pub(super) fn settings(&self, control: &Control) -> Result<UpgradeSettings> {
        if let Some(base_url) = &self.base_url {
            endpoint(base_url, true)?;
        }
        Ok(UpgradeSettings {
            base_url: self.base_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
            metadata_columns: self.metadata_columns.clone(),
            policy: self.policy.policy.as_deref().map(policy::read).transpose()?,
            abandon_backfill: self.abandon_backfill,
            compact: self.compact.settings(control)?,
        })
    }
}

impl ReconcileArgs {
    /// # Errors
    /// If `--retain` is too short, or the policy's key cannot be read.
    pub(super) fn settings(&self, control: &Control) -> Result<ReconcileSettings> {
        let compact = CompactSettings {
            retain: self.keep.retain()?,
            history: self.history.history(),
            policy_key: policy::key(&self.policy_key)?,
            control: control.clone(),
        };
        Ok(ReconcileSettings {
            from: self.from,
            to: self.to,
            on_deleted: self.on_deleted,
            max_deleted: self.max_deleted,
            restart: self.restart,
            page_size: self.api.page_size,
            user_filters: self.api.user_filters.clone(),
            flush: self.flush.policy(),
            compact,
        })
    }
}

impl FetchArgs {
    fn settings(&self, control: &Control) -> Result<FetchSettings> {
        Ok(FetchSettings {
            restart: self.restart,
            page_size: self.api.page_size,
            user_filters: self.api.user_filters.clone(),
            format: self.format,
            partition_by: self.partition_by,
            metadata_columns: self.metadata_columns.clone(),
            policy: self.policy.policy.as_deref().map(policy::read).transpose()?,
            policy_key: policy::key(&self.policy_key)?,
            on_bad_record: self.on_bad_record,
            flush: self.flush.policy(),
            history: self.history.history(),
            control: control.clone(),
        })
    }
}

impl FlushArgs {
    fn policy(&self) -> FlushPolicy {
        FlushPolicy {
            max_conversations: self.flush_conversations,
            max_bytes: self.flush_bytes.as_u64(),
            max_pages: u64::MAX,
            max_age: self.flush_interval,
        }
    }
}

impl ApiArgs {
    /// How to reach the API; the key is kept out of every log line from now on.
    ///
    /// # Errors
    /// If there is no key, or none that can be one.
    pub(super) fn options(&self) -> Result<Options> {
        let key = self.key()?;
        logging::hide(&key);
        Ok(Options {
            base_url: self.base_url.clone(),
            key,
            requests_per_second: self.requests_per_second,
            retry: RetryPolicy {
                max_tries: usize::try_from(self.max_tries).unwrap_or(usize::MAX),
                max_total: self.max_retry_time,
                ..RetryPolicy::default()
            },
            timeout: self.timeout,
            max_response_bytes: self.max_response_bytes.as_u64(),
            allow_http: self.allow_http,
        })
    }

    fn key(&self) -> Result<ApiKey> {
        let variable = std::env::var_os(API_KEY).filter(|value| !value.is_empty());
        match (&self.api_key_file, variable) {
            (Some(file), _) => ApiKey::from_file(file),
            (None, Some(value)) => ApiKey::from_bytes(value.as_encoded_bytes(), API_KEY),
            (None, None) => Err(Error::usage("no API key").with_hint(format!("set {API_KEY} or --api-key-file"))),
        }
    }
}
