/* Reads lines of `KEY request|response VERSION HEX` and `batch HEX`, decodes each with Kafka's own
 * classes, and prints those whose bytes come out different when written again. */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.TimestampType;

public final class Wire {
    private static String again(String[] word) {
        ApiMessageType type = ApiMessageType.fromApiKey(Short.parseShort(word[0]));
        ApiMessage message = word[1].equals("request") ? type.newRequest() : type.newResponse();
        short version = Short.parseShort(word[2]);
        ByteBuffer in = ByteBuffer.wrap(HexFormat.of().parseHex(word[3]));
        message.read(new ByteBufferAccessor(in), version);
        if (in.hasRemaining())
            return in.remaining() + " bytes are left of " + message;
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(out), cache, version);
        String hex = HexFormat.of().formatHex(out.array());
        return hex.equals(word[3]) ? null : hex + " is what Kafka writes for " + message;
    }

    private static String batchAgain(String hex) {
        ByteBuffer in = ByteBuffer.wrap(HexFormat.of().parseHex(hex));
        MutableRecordBatch b = MemoryRecords.readableRecords(in).batches().iterator().next();
        b.ensureValid();
        ByteBuffer out = ByteBuffer.allocate(in.capacity() + 1024);
        MemoryRecordsBuilder w = MemoryRecords.builder(out, RecordBatch.CURRENT_MAGIC_VALUE,
            Compression.NONE, TimestampType.CREATE_TIME, b.baseOffset(), RecordBatch.NO_TIMESTAMP,
            b.producerId(), b.producerEpoch(), b.baseSequence(), false, b.partitionLeaderEpoch());
        for (Record r : b)
            w.appendWithOffset(r.offset(), r.timestamp(), r.key(), r.value(), r.headers());
        String again = HexFormat.of().formatHex(bytes(w.build().buffer()));
        return again.equals(hex) ? null : again + " is what Kafka writes for " + b;
    }

    private static byte[] bytes(ByteBuffer b) {
        byte[] to = new byte[b.remaining()];
        b.get(to);
        return to;
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        int count = 0, wrong = 0;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String said;
            try {
                said = line.startsWith("batch ") ? batchAgain(line.substring(6))
                    : again(line.split(" ", -1));
            } catch (RuntimeException e) {
                said = e.toString();
            }
            count++;
            if (said != null) {
                wrong++;
                System.out.println(line.substring(0, Math.min(line.length(), 300)) + ": " + said);
            }
        }
        System.out.println(count + " read, " + wrong + " differ");
        System.exit(wrong == 0 && count > 0 ? 0 : 1);
    }
}
