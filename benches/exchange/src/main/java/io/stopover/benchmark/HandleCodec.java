/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.benchmark;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.airlift.json.ObjectMapperProvider;

import java.io.IOException;
import java.io.UncheckedIOException;

/**
 * Encodes handles as the JSON that Trino sends between nodes, and decodes them again. The server's
 * mapper writes them, preceded by the plugin and class name; the class from that plugin's class
 * loader reads them.
 */
final class HandleCodec
{
    private static final String TYPE = "@type";

    private final ObjectMapper mapper = new ObjectMapperProvider().get();
    private final PluginFolder plugin;

    HandleCodec(PluginFolder plugin)
    {
        this.plugin = plugin;
    }

    byte[] encode(Object handle)
    {
        ObjectNode json = mapper.createObjectNode();
        json.put(TYPE, plugin.name() + ":" + handle.getClass().getName());
        json.setAll((ObjectNode) mapper.valueToTree(handle));
        try {
            return mapper.writeValueAsBytes(json);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    <T> T decode(byte[] encoded, Class<T> kind)
    {
        try {
            ObjectNode json = (ObjectNode) mapper.readTree(encoded);
            String type = json.remove(TYPE).asText();
            String className = type.substring(plugin.name().length() + 1);
            return kind.cast(
                    mapper.treeToValue(json, plugin.classLoader().loadClass(className)));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        catch (ClassNotFoundException e) {
            throw new IllegalStateException(e);
        }
    }
}
