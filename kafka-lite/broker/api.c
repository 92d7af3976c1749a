/* api.c - the table of served APIs, with the versions that work.
 *
 * Produce says 0 though it begins with 3: librdkafka compresses nothing for a broker that does not
 * (as Apache Kafka does, KIP-896).
 */
#include "broker/handlers.h"

const struct kafka_entry kafka_entries[] = {
    {KAFKA_KEY_PRODUCE, 3, 13, 0, kafka_handle_produce},
    {KAFKA_KEY_FETCH, 4, 18, 4, kafka_handle_fetch},
    {KAFKA_KEY_LIST_OFFSETS, 1, 10, 1, kafka_handle_list_offsets},
    {KAFKA_KEY_METADATA, 0, 13, 0, kafka_handle_metadata},
    {KAFKA_KEY_API_VERSIONS, 0, 4, 0, kafka_handle_api_versions},
    {KAFKA_KEY_CREATE_TOPICS, 2, 7, 2, kafka_handle_create_topics},
    {KAFKA_KEY_DELETE_TOPICS, 1, 6, 1, kafka_handle_delete_topics},
    {KAFKA_KEY_DELETE_RECORDS, 0, 2, 0, kafka_handle_delete_records},
    {KAFKA_KEY_INIT_PRODUCER_ID, 0, 5, 0, kafka_handle_init_producer_id},
    {KAFKA_KEY_OFFSET_FOR_LEADER_EPOCH, 2, 4, 2, kafka_handle_offset_for_leader_epoch},
    {KAFKA_KEY_DESCRIBE_CONFIGS, 1, 4, 1, kafka_handle_describe_configs},
    {KAFKA_KEY_ALTER_CONFIGS, 0, 2, 0, kafka_handle_alter_configs},
    {KAFKA_KEY_CREATE_PARTITIONS, 0, 3, 0, kafka_handle_create_partitions},
    {KAFKA_KEY_INCREMENTAL_ALTER_CONFIGS, 0, 1, 0, kafka_handle_incremental_alter_configs},
    {KAFKA_KEY_DESCRIBE_CLUSTER, 0, 1, 0, kafka_handle_describe_cluster},
};
const size_t kafka_entries_count = sizeof kafka_entries / sizeof kafka_entries[0];
