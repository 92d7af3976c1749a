/* Reads lines of `KEY request|response VERSION HEX`, decodes each with Kafka's own classes, and
 * prints those whose bytes come out different when written again. */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

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

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        int count = 0, wrong = 0;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String said;
            try {
                said = again(line.split(" ", -1));
            } catch (RuntimeException e) {
                said = e.toString();
            }
            count++;
            if (said != null) {
                wrong++;
                System.out.println(line.substring(0, Math.min(line.length(), 300)) + ": " + said);
            }
        }
        System.out.println(count + " messages, " + wrong + " differ");
        System.exit(wrong == 0 && count > 0 ? 0 : 1);
    }
}
