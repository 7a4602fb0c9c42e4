//! The nouns every other module speaks in: ids, times, cursors, windows and the four tables. No I/O.

mod api_time;
mod cursor;
mod ids;
mod lenient;
mod object;
mod table;
mod time;
mod typed;
mod window;

pub use api_time::{ApiTime, epoch_time, means_no_time, parse_api_time};
pub use cursor::Cursor;
pub use ids::{CreatedDate, RunId};
pub use lenient::{Fault, Repaired, repair, skip_space};
pub use object::{Array, Elements, Object, Objects, elements};
pub use table::{Column, Kind, PerTable, Source, Table, column};
pub use time::{EpochSecs, from_micros, parse_user_time};
pub use typed::{big_ints, ints, texts, times};
pub use window::{Request, TimestampFilter, Window};
