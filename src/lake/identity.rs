//! The identity of a lake, decided when the lake is created: `_state/lake.json`.
//!
//! Must not depend on: the lake's state.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{LakeColumns, MetadataColumn, PartitionBy, RowPolicy, SCHEMA_VERSION};
use crate::policy::{KeptPolicy, Policy, PolicyChain, PolicyKey};

/// The layout version that this program writes. Programs of before [`SCHEMA_VERSION`] and [`PartitionBy`] know only the
/// earlier ones (1 for plain tables, 2 for Delta tables), so that they refuse a lake that they would damage.
const FORMAT_VERSION: u32 = 3;
/// The layout version of a lake with a policy, or that suppresses conversations, so that programs that know neither
/// refuse it.
const GUARDED_VERSION: u32 = 4;

/// The format of a lake's tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One Parquet file per partition, replaced by a single write.
    #[default]
    Parquet,
    /// Delta Lake tables: snapshots, time travel, and files that stay while they are read.
    Delta,
}

impl Format {
    /// The name in flags, reports and `lake.json`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Delta => "delta",
        }
    }
}

/// The identity that an export expects of a lake.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The API whose conversations it holds.
    pub base_url: &'a str,
    /// The `user_filters` of every request.
    pub user_filters: Option<&'a Value>,
    /// The format of its tables; `None` accepts either.
    pub format: Option<Format>,
    /// How much time a partition covers; `None` accepts either.
    pub partition_by: Option<PartitionBy>,
    /// Keys of `metadata` that have a column; a lake that lacks one gets it.
    pub metadata_columns: &'a [MetadataColumn],
    /// The policy and its key.
    pub governed: Governed<'a>,
}

/// The policy that a run brings, and the key of hashes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Governed<'a> {
    /// The policy; `None` means the lake's own.
    pub policy: Option<&'a Policy>,
    /// The key.
    pub key: Option<&'a PolicyKey>,
}

/// The identity of a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The layout version.
    pub format_version: u32,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The `user_filters` of every request.
    #[serde(default)]
    pub user_filters: Option<Value>,
    /// The format of its tables.
    #[serde(default)]
    pub format: Format,
    /// How much time a partition covers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partition_by: PartitionBy,
    /// The schema of its files; some may have an earlier one.
    #[serde(default = "first_schema")]
    pub schema_version: u32,
    /// The keys of `metadata` that have a column, in the columns' order.
    #[serde(default)]
    pub metadata_columns: Vec<MetadataColumn>,
    /// Whether conversations are suppressed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suppresses: bool,
    /// The policies that it has had, the oldest first; the last one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<KeptPolicy>,
    /// What tells the key of its hashes from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_key_check: Option<String>,
    /// When it was created, which distinguishes it from earlier lakes at the same place.
    pub created_at: DateTime<Utc>,
}

/// The schema of lakes that were made before schemas had numbers.
fn first_schema() -> u32 {
    1
}

impl Identity {
    /// Creates an identity as `wanted`; `earlier` is one that was decided before the first commit.
    ///
    /// # Errors
    /// Kind `Usage` if the columns of metadata contradict each other.
    pub(super) fn decided(wanted: Wanted<'_>, earlier: Option<&Identity>, now: DateTime<Utc>) -> Result<Self> {
        let format = wanted.format.or(earlier.map(|it| it.format)).unwrap_or_default();
        let partition_by = wanted.partition_by.or(earlier.map(|it| it.partition_by)).unwrap_or_default();
        let identity = Identity {
            format_version: FORMAT_VERSION,
            base_url: wanted.base_url.to_owned(),
            user_filters: wanted.user_filters.cloned(),
            format,
            partition_by,
            schema_version: SCHEMA_VERSION,
            metadata_columns: MetadataColumn::grown(&[], wanted.metadata_columns).map_err(contradictory)?,
            suppresses: false,
            policies: earlier.map(|it| it.policies.clone()).unwrap_or_default(),
            policy_key_check: earlier.and_then(|it| it.policy_key_check.clone()),
            created_at: now,
        };
        identity.governed(wanted.governed)
    }

    /// The same with the newest schema and the `wanted` columns of metadata; the earlier columns stay.
    ///
    /// # Errors
    /// Kind `Usage` if the columns contradict those that it has.
    pub(super) fn grown(self, wanted: &[MetadataColumn]) -> Result<Self> {
        let metadata_columns = MetadataColumn::grown(&self.metadata_columns, wanted).map_err(contradictory)?;
        let format_version = self.format_version.max(FORMAT_VERSION);
        Ok(Identity { format_version, schema_version: SCHEMA_VERSION, metadata_columns, ..self })
    }

    /// The same of a lake that suppresses conversations.
    pub(super) fn suppressing(self) -> Self {
        let format_version = self.format_version.max(GUARDED_VERSION);
        Identity { suppresses: true, format_version, ..self }
    }

    /// The same with the policy that a run brings.
    ///
    /// # Errors
    /// Kind `Usage` if that shows more than the lake's own, or the key is missing or another one.
    pub(super) fn governed(self, Governed { policy, key }: Governed<'_>) -> Result<Self> {
        let policies = KeptPolicy::grown(&self.policies, policy)?;
        let Some(chain) = PolicyChain::of(&policies, key)? else { return Ok(self) };
        let mut policy_key_check = self.policy_key_check;
        let check = key.map(PolicyKey::check);
        if chain.current()?.hashes() || policy_key_check.is_some() {
            match (&policy_key_check, &check) {
                (Some(known), Some(given)) if known != given => {
                    return Err(Error::usage("the policy key is not the one that the lake's hashes were made with")
                        .with_hint("set DECAGON_POLICY_KEY or --policy-key-file to the key of this lake"));
                }
                (None, Some(_)) => policy_key_check = check,
                _ => {}
            }
        }
        // Fails without a key that it needs.
        chain.masker()?;
        let format_version = self.format_version.max(GUARDED_VERSION);
        Ok(Identity { format_version, policies, policy_key_check, ..self })
    }

    /// The policies of the lake with this key; `None` if it has none.
    ///
    /// # Errors
    /// As [`Lake::claim`](super::Lake::claim); kind `Integrity` if a policy is damaged.
    pub fn policies(&self, key: Option<&PolicyKey>) -> Result<Option<PolicyChain>> {
        self.clone().governed(Governed { policy: None, key })?;
        PolicyChain::of(&self.policies, key)
    }

    /// The hash of the policy that counts.
    pub fn policy_hash(&self) -> Option<&str> {
        self.policies.last().map(|policy| policy.hash.as_str())
    }

    /// Checks that this program knows the layout and the columns of the lake at `url`.
    ///
    /// # Errors
    /// Kind `Usage` if a newer version made them.
    pub(super) fn check_known(&self, url: &str) -> Result<()> {
        for (what, found, known) in [
            ("format", self.format_version, GUARDED_VERSION),
            ("columns of schema", self.schema_version, SCHEMA_VERSION),
        ] {
            if found > known {
                return Err(Error::usage(format!(
                    "the lake {url} has {what} {found}, newer than this program, which reads up to {known}"
                ))
                .with_hint("update decagon-lake"));
            }
        }
        Ok(())
    }

    /// Whether its schema is not the newest one.
    pub fn is_older(&self) -> bool {
        self.schema_version < SCHEMA_VERSION
    }

    /// The columns of its tables with the newest schema, which every reader and writer knows.
    pub fn columns(&self) -> LakeColumns {
        self.following_policy(LakeColumns::new(&self.metadata_columns))
    }

    fn following_policy(&self, columns: LakeColumns) -> LakeColumns {
        match self.policy_hash() {
            None => columns,
            Some(hash) => {
                let policies = u32::try_from(self.policies.len()).unwrap_or(u32::MAX);
                columns.with_policy(policies, &RowPolicy::Named(hash.to_owned()))
            }
        }
    }

    /// The columns that its files have, as far as they are not of an earlier schema.
    pub fn written_columns(&self) -> LakeColumns {
        LakeColumns::of_schema(self.schema_version, &self.metadata_columns)
    }

    /// Whether it is as `wanted`.
    pub(super) fn suits(&self, wanted: Wanted<'_>) -> bool {
        self.base_url == wanted.base_url
            && self.user_filters.as_ref() == wanted.user_filters
            && wanted.format.is_none_or(|format| format == self.format)
            && wanted.partition_by.is_none_or(|by| by == self.partition_by)
    }

    /// The error of a lake at `url` that is not as `wanted`.
    pub(super) fn contradicts(&self, url: &str, wanted: Wanted<'_>) -> Error {
        if self.base_url != wanted.base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {}",
                self.base_url, wanted.base_url
            ))
            .with_hint("use the --base-url that the lake was created with, or another --lake");
        }
        if self.user_filters.as_ref() != wanted.user_filters {
            let text = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
            let (theirs, mine) = (text(self.user_filters.as_ref()), text(wanted.user_filters));
            return Error::usage(format!("the lake {url} was created with --user-filters {theirs}, not {mine}"))
                .with_hint("use the same --user-filters, or another --lake: each set of filters needs its own lake");
        }
        let (flag, value, kept) = match wanted.format {
            Some(format) if format != self.format => ("--format", self.format.name(), "format"),
            _ => ("--partition-by", self.partition_by.name(), "partitions"),
        };
        Error::usage(format!("the lake {url} was created with {flag} {value}"))
            .with_hint(format!("omit {flag}, or use another --lake: a lake keeps its {kept}"))
    }
}

fn is_default(partition_by: &PartitionBy) -> bool {
    *partition_by == PartitionBy::default()
}

/// The error of columns of metadata that contradict each other, or those that the lake has.
fn contradictory(why: String) -> Error {
    Error::usage(format!("--metadata-columns: {why}"))
        .with_hint("a lake keeps the columns that it has; `_state/lake.json` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(format: Option<Format>, partition_by: Option<PartitionBy>, earlier: Option<&Identity>) -> Identity {
        let (base_url, metadata_columns) = ("https://api", &[]);
        let governed = Governed::default();
        let wanted = Wanted { base_url, user_filters: None, format, partition_by, metadata_columns, governed };
        Identity::decided(wanted, earlier, DateTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn programs_that_do_not_know_months_refuse_them_and_days_are_not_written() {
        assert_eq!(decided(None, Some(PartitionBy::Month), None).format_version, 3, "they know 2 at most");
        let by_day = serde_json::to_value(decided(None, Some(PartitionBy::Day), None)).unwrap();
        assert!(by_day.get("partition_by").is_none());
        assert_eq!(serde_json::from_value::<Identity>(by_day).unwrap().partition_by, PartitionBy::Day);
        let by_month = decided(None, Some(PartitionBy::Month), None);
        let written = serde_json::to_value(&by_month).unwrap();
        assert_eq!(written["partition_by"], "month");
        assert_eq!(serde_json::from_value::<Identity>(written).unwrap(), by_month);
    }

    #[test]
    fn what_was_decided_before_the_first_commit_stays_unless_something_else_is_wanted() {
        let earlier = decided(Some(Format::Delta), Some(PartitionBy::Month), None);
        assert_eq!(decided(None, None, Some(&earlier)), earlier);
        let other = decided(None, Some(PartitionBy::Day), Some(&earlier));
        assert_eq!((other.format, other.partition_by), (Format::Delta, PartitionBy::Day));
    }

    #[test]
    fn other_partitions_than_the_lake_has_are_refused() {
        let by_month = decided(None, Some(PartitionBy::Month), None);
        let (base_url, metadata_columns) = ("https://api", &[]);
        let governed = Governed::default();
        let wanted = |partition_by| Wanted {
            base_url,
            user_filters: None,
            format: None,
            partition_by,
            metadata_columns,
            governed,
        };
        assert!(by_month.suits(wanted(None)) && by_month.suits(wanted(Some(PartitionBy::Month))));
        assert!(!by_month.suits(wanted(Some(PartitionBy::Day))));
        let error = by_month.contradicts("lake", wanted(Some(PartitionBy::Day)));
        assert_eq!(error.to_string(), "the lake lake was created with --partition-by month");
        assert!(error.kind().exit_code() == 2 && error.hint().unwrap().contains("omit --partition-by"));
    }

    /// What earlier releases wrote.
    fn of_schema_1() -> Identity {
        let text = r#"{"format_version":2,"base_url":"u","user_filters":null,"format":"delta","created_at":"2024-01-01T00:00:00Z"}"#;
        serde_json::from_str(text).unwrap()
    }

    fn metadata(columns: &[&str]) -> Vec<MetadataColumn> {
        columns.iter().map(|column| column.parse().unwrap()).collect()
    }

    #[test]
    fn a_lake_grows_and_programs_of_before_refuse_it() {
        let before = of_schema_1();
        assert_eq!((before.schema_version, before.written_columns()), (1, LakeColumns::of_schema(1, &[])));
        let grown = before.clone().grown(&metadata(&["plan"])).unwrap();
        assert!(grown.format_version > before.format_version, "earlier releases know only this number");
        assert_eq!((grown.schema_version, grown.columns()), (SCHEMA_VERSION, grown.written_columns()));
        let again = grown.clone().grown(&[]).unwrap();
        assert_eq!(again, grown);
        let more = grown.clone().grown(&metadata(&["vip:boolean", "plan"])).unwrap();
        assert_eq!(more.metadata_columns, metadata(&["plan", "vip:boolean"]));
        let error = grown.grown(&metadata(&["plan:double"])).unwrap_err();
        assert_eq!((error.kind().exit_code(), error.hint().is_some()), (2, true));
    }

    #[test]
    fn programs_that_do_not_know_suppressions_refuse_them() {
        let written = serde_json::to_value(of_schema_1()).unwrap();
        assert!(written.get("suppresses").is_none());
        let suppressing = of_schema_1().suppressing();
        assert!(suppressing.format_version > FORMAT_VERSION, "they know only this number");
        assert_eq!(suppressing.clone().grown(&[]).unwrap().format_version, suppressing.format_version);
        suppressing.check_known("x").unwrap();
    }

    #[test]
    fn a_lake_of_a_newer_release_is_refused_with_a_hint() {
        let known = of_schema_1().grown(&[]).unwrap();
        known.check_known("x").unwrap();
        for newer in [
            Identity { format_version: GUARDED_VERSION + 1, ..known.clone() },
            Identity { schema_version: SCHEMA_VERSION + 1, ..known },
        ] {
            let error = newer.check_known("x").unwrap_err();
            assert_eq!((error.kind().exit_code(), error.hint()), (2, Some("update decagon-lake")));
        }
    }
}
