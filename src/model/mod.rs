//! The types that every other module shares: ids, partitions, times, cursors, windows and the four tables. Must not
//! depend on: I/O.

mod api_time;
mod column_kind;
mod columns;
mod cursor;
mod field_counts;
mod ids;
mod metadata_column;
mod page_size;
mod partition;
mod range;
mod row_policy;
mod selector;
mod table;
mod time;
mod window;

pub use api_time::{ApiTime, epoch_time, means_no_time, parse_api_time};
pub use column_kind::ColumnKind;
pub use columns::{Column, ColumnSource, LakeColumns, SCHEMA_VERSION, TableColumns, column};
pub use cursor::Cursor;
pub use field_counts::FieldCounts;
pub use ids::RunId;
pub use metadata_column::{MetadataColumn, MetadataType};
pub use page_size::{LearnedPageSize, PageSize, PageSizeChoice, USUAL_PAGE};
pub use partition::{CreatedDate, PartitionBy, UNKNOWN_PARTITION};
pub use range::{RowTimes, TimeRange};
pub use row_policy::RowPolicy;
pub use selector::Selector;
pub use table::{PerTable, Table, big_ints, ints, texts, times};
pub use time::{EpochSecs, from_micros, parse_user_time};
pub use window::{Request, TimestampFilter, Window};
