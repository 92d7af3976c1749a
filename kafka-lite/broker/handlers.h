/* handlers.h - one function an API; api.c has the table. Each takes the request over
 * (request.h). */
#ifndef KAFKA_BROKER_HANDLERS_H
#define KAFKA_BROKER_HANDLERS_H

#include "broker/request.h"

/* What is served: nothing else is told to clients. */
extern const struct kafka_entry kafka_entries[];
extern const size_t kafka_entries_count;

kafka_handler_fn kafka_handle_produce, kafka_handle_fetch, kafka_handle_list_offsets;
kafka_handler_fn kafka_handle_metadata, kafka_handle_describe_cluster, kafka_handle_api_versions;
kafka_handler_fn kafka_handle_create_topics, kafka_handle_delete_topics;
kafka_handler_fn kafka_handle_create_partitions, kafka_handle_delete_records;
kafka_handler_fn kafka_handle_init_producer_id, kafka_handle_offset_for_leader_epoch;
kafka_handler_fn kafka_handle_describe_configs, kafka_handle_alter_configs;
kafka_handler_fn kafka_handle_incremental_alter_configs;

#endif
