//! The types that every other module shares: ids, partitions, times, cursors, windows and the four tables. Must not depend on: I/O.

mod api_time;
mod cursor;
mod ids;
mod page_size;
mod partition;
mod range;
mod table;
mod time;
mod window;

pub use api_time::{ApiTime, epoch_time, means_no_time, parse_api_time};
pub use cursor::Cursor;
pub use ids::RunId;
pub use page_size::{LearnedPageSize, PageSize, PageSizeChoice, USUAL_PAGE};
pub use partition::{CreatedDate, PartitionBy, UNKNOWN_PARTITION};
pub use range::{RowTimes, TimeRange};
pub use table::{Column, ColumnKind, ColumnSource, PerTable, Table, big_ints, column, ints, texts, times};
pub use time::{EpochSecs, from_micros, parse_user_time};
pub use window::{Request, TimestampFilter, Window};
