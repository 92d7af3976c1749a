/* A partition's directory through Kafka's own log, the one its broker has.
 *
 *   Log write DIR COUNT [crash]   appends COUNT batches; closes it, or stops as a crash does
 *   Log read DIR clean|crashed    lines of `FIRST LAST COUNT CRC`, after Kafka's recovery */
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.storage.log.FetchIsolation;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

public final class Log {
    private static UnifiedLog open(String dir, boolean clean, KafkaScheduler scheduler)
            throws Exception {
        Map<String, String> config = Map.of("internal.segment.bytes", "65536", "index.interval.bytes",
            "1024", "segment.ms", "9000000000000", "retention.ms", "-1", "segment.index.bytes",
            "65536", "message.timestamp.after.max.ms", "9000000000000");
        return UnifiedLog.create(new File(dir), new LogConfig(config), 0L, 0L, scheduler,
            new BrokerTopicStats(), Time.SYSTEM, 60000, new ProducerStateManagerConfig(60000, false),
            60000, new LogDirFailureChannel(1), clean, Optional.empty());
    }

    private static void write(UnifiedLog log, int count) throws Exception {
        Random random = new Random(count);
        for (int i = 0; i < count; i++) {
            SimpleRecord[] records = new SimpleRecord[1 + random.nextInt(5)];
            for (int k = 0; k < records.length; k++)
                records[k] = new SimpleRecord(1700000000000L + i * 1000L - random.nextInt(9000),
                    ("key" + k).getBytes(StandardCharsets.UTF_8), new byte[random.nextInt(700)]);
            Compression[] codecs = {Compression.NONE, Compression.gzip().build()};
            log.appendAsLeader(MemoryRecords.withRecords(codecs[i % 2], records), i / 50);
        }
        System.out.println(log.logEndOffset());
    }

    private static void read(UnifiedLog log) throws Exception {
        long next = log.logStartOffset();
        while (next < log.logEndOffset()) {
            long before = next;
            for (RecordBatch b
                 : log.read(next, 1 << 20, FetchIsolation.LOG_END, true).records.batches()) {
                b.ensureValid();
                System.out.println(b.baseOffset() + " " + b.lastOffset() + " "
                    + b.countOrNull() + " " + b.checksum());
                next = b.nextOffset();
            }
            if (next == before)
                throw new IllegalStateException("nothing at offset " + next);
        }
    }

    public static void main(String[] args) throws Exception {
        KafkaScheduler scheduler = new KafkaScheduler(1);
        scheduler.startup();
        if (args[0].equals("read")) {
            UnifiedLog log = open(args[1], args[2].equals("clean"), scheduler);
            read(log);
            log.close();
        } else {
            UnifiedLog log = open(args[1], false, scheduler);
            write(log, Integer.parseInt(args[2]));
            if (args.length > 3) {
                System.out.flush();
                Runtime.getRuntime().halt(0);
            }
            log.flush(true);
            log.close();
        }
        scheduler.shutdown();
    }
}
