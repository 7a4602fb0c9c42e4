//! The columns of each schema, and the order in which they grow.

use super::*;

fn names(columns: &LakeColumns, table: Table) -> String {
    columns.of(table).columns().iter().map(|column| column.name.as_ref()).collect::<Vec<_>>().join(", ")
}

/// The columns as the design fixes them: a change here breaks people's queries.
#[test]
fn columns_have_the_promised_names_and_order() {
    let names = |table: Table| names(&LakeColumns::default(), table);
    assert_eq!(
        names(Table::Conversations),
        "conversation_id, user_id, destination, created_at, updated_at, last_message_at, last_user_message_at, \
         undeflected, summary, resolution, csat_rating, csat, csat_role, csat_resolved, customer_feedback, \
         flow_type, notes, metadata, message_count, conversation_url, all_tags, watchtower_reviews, extra, \
         _exported_at, _run_id, _seq, deleted_at"
    );
    assert_eq!(
        names(Table::Messages),
        "conversation_id, message_index, role, text, created_at, message_id, extra, _run_id, _seq"
    );
    assert_eq!(names(Table::Tags), "conversation_id, tag_index, tag_id, name, level, extra, _run_id, _seq");
    assert_eq!(names(Table::AuditLogs), "conversation_id, log_index, text, payload, created_at, extra, _run_id, _seq");
}

/// Lakes of schemas 1 and 2 have these columns, so they must never change.
#[test]
fn earlier_schemas_stay_as_they_were() {
    let first = LakeColumns::of_schema(1, &[]);
    assert_eq!(
        names(&first, Table::Conversations),
        "conversation_id, user_id, destination, created_at, updated_at, last_message_at, last_user_message_at, \
         undeflected, summary, resolution, csat_rating, csat, csat_role, csat_resolved, customer_feedback, \
         flow_type, notes, metadata, message_count, extra, _exported_at, _run_id, _seq"
    );
    assert_eq!(
        names(&first, Table::Messages),
        "conversation_id, message_index, role, text, created_at, extra, _run_id, _seq"
    );
    let second = names(&LakeColumns::of_schema(2, &[]), Table::Conversations);
    assert_eq!(format!("{second}, deleted_at"), names(&LakeColumns::default(), Table::Conversations));
    for table in Table::ALL {
        let older = first.of(table).columns().iter();
        let kept: Vec<_> = table.columns().iter().filter(|column| !column.is_newer()).collect();
        assert_eq!(older.collect::<Vec<_>>(), kept, "{}", table.name());
        assert!(table.columns().iter().all(|column| column.since <= SCHEMA_VERSION));
    }
}

#[test]
fn the_columns_of_metadata_stand_before_extra() {
    let metadata: Vec<MetadataColumn> = ["plan", "vip:boolean"].map(|text| text.parse().unwrap()).into();
    let columns = LakeColumns::new(&metadata);
    let expected = "watchtower_reviews, metadata_plan, metadata_vip, extra, _exported_at";
    assert!(names(&columns, Table::Conversations).contains(expected), "{}", names(&columns, Table::Conversations));
    assert!(Table::CHILDREN.iter().all(|table| columns.of(*table) == LakeColumns::default().of(*table)));
    assert_eq!(columns.of(Table::Conversations).metadata_keys().collect::<Vec<_>>(), ["plan", "vip"]);
}

#[test]
fn extra_comes_after_every_field() {
    for table in Table::ALL {
        let after = table.columns().iter().skip_while(|column| column.source != Extra);
        assert!(after.clone().count() > 0);
        assert!(after.into_iter().all(|column| !matches!(column.source, ColumnSource::Field(_))), "{}", table.name());
    }
}

#[test]
fn only_keys_are_required() {
    for table in Table::ALL {
        for field in LakeColumns::default().of(table).schema().fields() {
            let key = field.name() == "conversation_id" || field.name().ends_with("_index");
            assert_eq!(field.is_nullable(), !key, "{}.{}", table.name(), field.name());
        }
    }
}
