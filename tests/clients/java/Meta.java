import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.InputStreamReader;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.ServerTopicConfigSynonyms;
import org.apache.kafka.storage.internals.log.LogConfig;

/**
 * What Kafka's own classes, and a broker of it, say about configurations and topics.
 *
 * table           the keys of topics and brokers, as `kafka_meta_answers table` prints ours
 * check           lines of KEY=VALUE from stdin: what is wrong with it, or ok
 * ask HOST PORT   lines of `KEY VERSION {request}` from stdin: the request's bytes in hex, a tab,
 *                 and the broker's response; what was asked and answered is thereby recorded
 */
public class Meta {
    private static void table(String what, ConfigDef def) {
        for (ConfigDef.ConfigKey k : new TreeMap<>(def.configKeys()).values()) {
            if (k.internalConfig)
                continue;
            StringBuilder synonyms = new StringBuilder();
            if (what.equals("topic"))
                for (var s : ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS
                                 .getOrDefault(k.name, java.util.List.of()))
                    synonyms.append(synonyms.isEmpty() ? "" : " ").append(s.name()).append('*')
                        .append(s.converter().apply("1"));
            boolean dynamic = what.equals("broker")
                && DynamicBrokerConfig.ALL_DYNAMIC_CONFIGS.contains(k.name);
            String preset = k.hasDefault() ? ConfigDef.convertToString(k.defaultValue, k.type) : null;
            System.out.println(String.join("\t", what, k.name, k.type.toString(),
                String.valueOf(preset), k.validator == null ? "" : k.validator.toString(),
                dynamic ? "dynamic" : "-", synonyms));
        }
    }

    private static void check(String line) {
        int at = line.indexOf('=');
        Map<String, String> p =
            Map.of(line.substring(0, at), line.substring(at + 1));
        try {
            LogConfig.validate(p);
            System.out.println("ok");
        } catch (Exception e) {
            System.out.println(e.getMessage());
        }
    }

    private static Object convert(ApiMessage m, String method, Object... args) throws Exception {
        for (var x : Class.forName(m.getClass().getName() + "JsonConverter").getMethods())
            if (x.getName().equals(method) && x.getParameterCount() == args.length)
                return x.invoke(null, args);
        throw new IllegalStateException(method);
    }

    private static int asked = 0;

    private static void ask(String line, DataOutputStream out, DataInputStream in)
        throws Exception {
        String[] words = line.split(" ", 3);
        short key = Short.parseShort(words[0]), version = Short.parseShort(words[1]);
        ApiMessageType type = ApiMessageType.fromApiKey(key);
        JsonNode json = new ObjectMapper().readTree(words[2]);
        ApiMessage q = (ApiMessage) convert(type.newRequest(), "read", json, version);
        RequestHeader h = new RequestHeader(ApiKeys.forId(key), version, "ask", asked++);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer head = ByteBuffer.allocate(h.data().size(cache, h.headerVersion()));
        h.data().write(new ByteBufferAccessor(head), cache, h.headerVersion());
        ByteBuffer body = ByteBuffer.allocate(q.size(cache, version));
        q.write(new ByteBufferAccessor(body), cache, version);
        out.writeInt(head.capacity() + body.capacity());
        out.write(head.array());
        out.write(body.array());
        out.flush();
        byte[] answer = new byte[in.readInt()];
        in.readFully(answer);
        ByteBufferAccessor from = new ByteBufferAccessor(ByteBuffer.wrap(answer));
        new ResponseHeaderData().read(from, type.responseHeaderVersion(version));
        ApiMessage a = type.newResponse();
        a.read(from, version);
        System.out.println(HexFormat.of().formatHex(body.array()) + "\t"
            + convert(a, "write", a, version));
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("table")) {
            table("topic", LogConfig.configDefCopy());
            table("broker", KafkaConfig.configDef());
            return;
        }
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        if (args[0].equals("check")) {
            for (String line; (line = lines.readLine()) != null;)
                check(line);
            return;
        }
        try (Socket s = new Socket(args[1], Integer.parseInt(args[2]))) {
            DataOutputStream out = new DataOutputStream(s.getOutputStream());
            DataInputStream in = new DataInputStream(s.getInputStream());
            for (String line; (line = lines.readLine()) != null;)
                ask(line, out, in);
        }
    }
}
