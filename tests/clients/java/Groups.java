/* Records of __consumer_offsets through Kafka's own classes. Reads lines of `KEY VALUE` in hex and
 * prints those whose bytes come out different when written again. With the argument `old`, prints
 * instead each record in every version that Kafka can write it in, as `KEY VALUE TEXT`. */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.coordinator.group.generated.GroupMetadataKey;
import org.apache.kafka.coordinator.group.generated.GroupMetadataValue;
import org.apache.kafka.coordinator.group.generated.OffsetCommitKey;
import org.apache.kafka.coordinator.group.generated.OffsetCommitValue;

public final class Groups {
    private static String written(ApiMessage m, short front, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(2 + m.size(cache, version));
        out.putShort(front);
        m.write(new ByteBufferAccessor(out), cache, version);
        return HexFormat.of().formatHex(out.array());
    }

    private static String text(OffsetCommitValue v, int version) {
        return v.offset() + "," + (version >= 3 ? v.leaderEpoch() : -1) + "," + v.metadata() + ","
            + v.commitTimestamp() + "," + (version == 1 ? v.expireTimestamp() : -1) + ",";
    }

    private static String text(GroupMetadataValue v, int version) {
        StringBuilder s = new StringBuilder(v.protocolType() + "," + v.generation() + ","
            + v.protocol() + "," + v.leader() + "," + (version >= 2 ? v.currentStateTimestamp() : -1)
            + ",");
        for (GroupMetadataValue.MemberMetadata m : v.members())
            s.append(m.memberId()).append(',').append(version >= 3 ? m.groupInstanceId() : null)
                .append(',').append(m.clientId()).append(',').append(m.clientHost()).append(',')
                .append(version >= 1 ? m.rebalanceTimeout() : -1).append(',')
                .append(m.sessionTimeout()).append(',')
                .append(new String(m.subscription(), StandardCharsets.UTF_8)).append(',')
                .append(new String(m.assignment(), StandardCharsets.UTF_8)).append(',');
        return s.toString();
    }

    public static void main(String[] args) throws Exception {
        boolean old = args.length > 0 && args[0].equals("old");
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        int count = 0, differ = 0;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; count++) {
            String[] word = line.split(" ");
            ByteBuffer k = ByteBuffer.wrap(HexFormat.of().parseHex(word[0]));
            ByteBuffer v = ByteBuffer.wrap(HexFormat.of().parseHex(word[1]));
            short kind = k.getShort(), version = v.getShort();
            ApiMessage key = kind == 2 ? new GroupMetadataKey() : new OffsetCommitKey();
            ApiMessage value = kind == 2 ? new GroupMetadataValue() : new OffsetCommitValue();
            key.read(new ByteBufferAccessor(k), (short) 0);
            value.read(new ByteBufferAccessor(v), version);
            if (!old) {
                boolean same = !k.hasRemaining() && !v.hasRemaining()
                    && written(key, kind, (short) 0).equals(word[0])
                    && written(value, version, version).equals(word[1]);
                differ += same ? 0 : 1;
                if (!same)
                    out.println(line + ": Kafka reads " + key + " " + value);
                continue;
            }
            for (short as = value.lowestSupportedVersion(); as <= value.highestSupportedVersion(); as++) {
                String said;
                if (value instanceof GroupMetadataValue g) {
                    if (as < 3)
                        g.members().forEach(m -> m.setGroupInstanceId(null));
                    said = text(g, as);
                } else {
                    OffsetCommitValue o = (OffsetCommitValue) value;
                    if (as != 4)
                        o = o.duplicate().setTopicId(org.apache.kafka.common.Uuid.ZERO_UUID);
                    o = o.duplicate().setExpireTimestamp(as == 1 ? o.expireTimestamp() : -1);
                    if (as < 3)
                        o.setLeaderEpoch(-1);
                    out.println(word[0] + " " + written(o, as, as) + " " + text(o, as));
                    continue;
                }
                out.println(word[0] + " " + written(value, as, as) + " " + said);
            }
        }
        if (!old)
            out.println(count + " records, " + differ + " differ");
        System.exit(count == 0 || differ > 0 ? 1 : 0);
    }
}
